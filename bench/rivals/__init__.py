"""Others who do the same work, each as its own documentation says that it does it best."""
