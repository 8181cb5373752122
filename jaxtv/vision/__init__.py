"""Vision tasks built on the TV layers."""
