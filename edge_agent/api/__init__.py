"""The local API: whoever is on this machine predicts, labels and asks how the device is. It never leaves the machine.

    a Unix socket, mode 0600          whoever may open it
    127.0.0.1, where a port is set    whoever knows the token; a page for people

    addresses  sockets and the token                server    deadlines, who may; one thread a connection
    routes     what each address does               bodies    samples in a request
    pictures   samples as a person can see them     page/     the page: three files, nothing from elsewhere
    metrics    for Prometheus                       client    `Agent`, for a program of one's own

In the worker, where the model is. What is deliberately absent: TLS, other addresses, cookies.
"""
