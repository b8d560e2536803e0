"""The emulator's page, for people: the instances in a table, one instance's story, and what a person may do to it.

The server renders HTML and takes forms. A script only keeps it up to date without loading it anew.
"""
