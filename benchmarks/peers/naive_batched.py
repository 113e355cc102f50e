"""The same handler by someone who knows that pytorch-grad-cam takes a whole batch."""

import naive


class BatchedExplainingClassifier(naive.ExplainingClassifier):
    """Predictions, and Grad-CAM of the likeliest class in one call a batch."""

    def explained(self, data):
        """Maps of the likeliest class, N x 224 x 224, all at once."""
        return self.cam(input_tensor=data, targets=None)
