"""The emulator's web page: a table of the instances, and for each instance its history and the actions on it.

The server renders HTML and handles forms. A script only updates the page without reloading it.
"""
