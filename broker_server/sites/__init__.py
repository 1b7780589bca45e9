"""What devices fetch and ask over HTTPS, in a process of its own: packages, signed documents, enrolment."""
