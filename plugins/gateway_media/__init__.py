"""Read images and recordings that clients send, within limits, for plugins that serve models of them.

Not a plugin. `payloads` reads base64 and data URLs, `pictures` images and `recordings` sound; the last two import their
libraries when they are used.
"""
