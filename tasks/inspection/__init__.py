"""What would be read of some data, before anything is trained: `lambda-seq data`."""
