"""How a device gets its certificate and keeps it: with `[enrolment]`.

renewal   what is due, and when                              (values and rules)
files     where key, certificate and the token's mark lie
errand    one visit to the server, in a process of its own:  key, request, answer, certificate
keeper    the supervisor's thread that sends the errand      (no cryptography here)
"""
