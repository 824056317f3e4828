"""What is known of weights besides their tensors: network, preprocessing, class names."""
