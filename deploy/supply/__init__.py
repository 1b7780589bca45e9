"""What our packages are made of, by the locks in deploy/deb/locks: bills, licences, known vulnerabilities."""
