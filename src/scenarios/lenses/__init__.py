"""What a model's captured states say: what each layer would predict, what adds up to a logit, how layers differ."""
