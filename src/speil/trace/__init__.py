"""What a trace of an image found on a node, and what this node's containerd would do for each part of it. A core.

`found` has the facts, `verdict` decides from them, `document` is the JSON that a node answers to POST
`/debug/web/trace` and that `speil region trace` prints.
"""
