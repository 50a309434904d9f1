"""A gallery in Milvus: ``store.py`` reads it, ``writer.py`` changes it.

``schema.py`` says how rows lie there, ``epoch.py`` how a change becomes visible all at once.
"""
