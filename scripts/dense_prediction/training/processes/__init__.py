"""What several processes of one run have to agree on."""
