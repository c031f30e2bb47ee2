"""What files say of a picture, checked: objects, masks and maps of classes."""
