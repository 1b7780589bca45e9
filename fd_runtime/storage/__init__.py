"""What must not be forgotten, in one SQLite file: journal, blobs, payloads, rows that people look back at."""
