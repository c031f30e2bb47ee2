"""What the scripts share: recipes, data, transforms, heads, optimization, metrics and drawing."""
