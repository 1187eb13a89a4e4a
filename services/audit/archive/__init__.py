"""The archive's makers and users: writing, verifying, restoring, replaying, questions in SQL, the job for clusters.

How events stand in its files, and how they are read, is `shared/archive`. The extra `archive` installs what it needs.
"""
