"""The documentation as a site: `make site` builds dist/site from README.md and docs/ with Sphinx, and checks its links.

The pages stay as GitHub shows them. Nothing is read from the network, neither to build the site nor to view it.
"""
