"""Where models come from: a file, `https://…` or a registry of OCI artifacts and container images, `oci://…`.

references.py reads what a user wrote, fetching.py brings the model into the cache and tells what a moving tag stands
for now. Everything else here is behind those two.
"""
