"""The operator's view: pages, live updates, metrics. A process of its own that reads the database and never writes it.

    settings             where it listens, who may look and who may command
    words, charts        values -> text; series -> SVG
    disagreement         who differs from the consensus, and on which class
    reading              the only door to the database and the bundles: everything a page shows, read only
    access, tickets      who asks, and in which role; sessions and tokens of forms
    pages                what stands on a page;  templates/, static/  how it looks
    guard, app           the web application;  watching  its live updates;  metrics  for Prometheus
    serving              the process;  `broker_server.child` keeps it alive beside the aggregator

What is deliberately absent: writing. A command is an order in the spool (`broker_server.orders`), with who and role.
"""
