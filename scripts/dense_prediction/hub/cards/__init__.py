"""The cards of repositories: written from templates and result files, and checked."""
