"""Files of older programs: pickles read as data, torch.save files mapped, archives unpacked."""
