"""The site's source, staged from the pages of docs/, the executed lessons and the front's generated block."""
