"""`speil region web`: the page of all regions, on loopback.

`collector` reads the regions again and again (`survey`) and keeps what the page shows; `document` makes the page's
sections; `session` lets only the user's own browser in; `server` answers.
"""
