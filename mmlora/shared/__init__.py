"""The shared workspace: a workspace that several machines have by a URL instead of a shared disk.

See docs/design/storage.md. A command pulls the newest version into its machine's own folder, works there, and
pushes what it changed as the next version.
"""
