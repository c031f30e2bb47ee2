"""The one exception for mistakes that the user can put right."""


class UserError(Exception):
    """A mistake in a recipe, in the data or on the command line; its text says what was seen and what to do."""
