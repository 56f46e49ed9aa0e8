"""The pages: files, event streams, traces, and what the node's page shows.

`event_stream` sends server-sent events, `assets` are the files of the pages, `headers` keep them from other pages.
`node_page` joins them for the metrics port; `region_web` uses them for the page of all regions.
"""
