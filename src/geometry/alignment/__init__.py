"""Maps from one model's space to another's: fitted on anchors, judged on tokens that nothing was fitted on."""
