"""How devices get, renew and lose their certificates.

    tokens    who may enrol, once, until when                       (values and rules)
    desk      token + request -> certificate;  certificate + request -> the next one
    keeping   the revocation list stays young, and the broker reads it
    sessions  the end of a session whose certificate was revoked
    audit     what was done, and by whom

The authority itself is `broker_server.identity.ca`; the port in front of the desk is `broker_server.sites.enrolment`.
"""
