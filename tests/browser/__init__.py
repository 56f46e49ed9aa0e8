"""The pages in a real browser: Debian's Chromium, driven by the DevTools protocol."""
