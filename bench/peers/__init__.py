"""Another platform beside ours, on the same servers, with the same model: what the figures are compared with."""
