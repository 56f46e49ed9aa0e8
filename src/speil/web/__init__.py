"""The pages: assets, event streams, the guard against other pages, and what the node's page shows.

`guard` decides which requests a browser may make, `event_stream` sends server-sent events, `assets` are the files of
the pages. `node_page` joins them for the metrics port; `region_web` uses them for the page of all regions.
"""
