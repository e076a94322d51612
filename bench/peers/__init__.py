"""Another platform on the same servers, with the same model, for comparison."""
