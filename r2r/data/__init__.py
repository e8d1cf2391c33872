"""Images, captions and the datamodules that batch them."""
