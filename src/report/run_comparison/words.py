"""What the page says about how to read each of its blocks."""

METRICS = (
    "cosine: of the angle between two states, 1 = same direction, 0 = at right angles, negative = opposed. "
    "MAE: mean absolute difference per dimension, in the units of the residual stream, so it grows with layers as the "
    "states do. overlap: Jaccard index of the 1 % of dimensions that are largest in size, 1 = the same ones.\n\n"
    "Sources: resid_pre and resid_post are the residual stream before and after a block, attn_out and mlp_out what "
    "attention and MLP add to it."
)
WITHIN = (
    "Each run is compared with itself: its state at the first step (the prompt's last token) and at its last step "
    "(while the model reads the last generated token but one). Values over all layers are means, not a sample: layers "
    "of one run are not independent of each other. The table's shade goes from 0.5 or less (none) to 1 (full).\n\n"
    + METRICS
)
LAYER_MAPS = (
    "A row for each run, a column for each layer. Dark = alike (for the MAE: dark = near). The keys R1, R2, ... "
    "lead to the runs in the table above."
)
GENERATION = (
    "What the model held likely before each token that it wrote. Move the slider with the mouse or the arrow keys, or "
    "choose a token; the more orange a token, the less probable it was. Entropy is that of the whole next-token "
    "distribution in nats; its exponential, the effective vocabulary, is the number of equally likely tokens that "
    "would "
    "be as uncertain."
)
ATTENTION = (
    "The model's own attention weights (after positions and softmax, mean over heads) of the token from which the next "
    "one is predicted, summed over the tokens of each message. Many heads park attention that they do not need on the "
    "very first token, which therefore stands alone; header = template tokens that ask for the answer. The shares of a "
    "row add up to 1. A long message gets more by its length alone: `even` is what it would get if all tokens got the "
    "same."
)
BETWEEN = (
    "Every run against every other, at the first step (initial) and the last (final), as means over layers. Runs of "
    "different models are not compared: their dimensions mean different things.\n\n" + METRICS
)
POSITIONS = {
    "end": "end of each message",
    "answer": "place where the model is about to answer each message",
    "mean": "mean over each message's tokens",
}
REFERENCES = (
    "Each message's state against the states of the reference texts. Raw cosines are all high and alike: states have "
    "much in common that has nothing to do with the labels (and in early layers often are the same template token). "
    "Centred cosines, with the mean of the neutral texts (or of all labels) subtracted from both, show what sets "
    "labels "
    "apart: compare the labels with each other, and with what the separability below says the references can tell "
    "apart at all. The lead is a label's centred cosine less the mean over all labels, message by message.\n\n"
    "Choose a label in a chart's legend to see it alone (with shift: several). In the heat maps of centred cosines "
    "blue "
    "is positive and red negative, both darkest at the greatest distance from 0 of that map. * marks the model's own "
    "reply; numbers and roles are those of the messages (sys, usr, ast)."
)
SEPARABILITY = (
    "Before anything is read into a message's nearest label: can the references themselves be told apart? Each "
    "reference text is held out in turn (with the examples of the same number of all other labels, where labels have "
    "equally many), and its nearest label by centred cosine is asked for. Line and bars: the share of texts that "
    "find their own label, with Wilson's 95 % interval over texts. Grey: what shuffled labels give, from "
    "the mean (dashed) to the 95 % quantile. p is corrected for all layers and sources together. Labels with one text "
    "can't be tested in this way."
)
LABELLED = (
    "Messages that the scenario itself gives a label, against directions made of the reference texts alone. Share: of "
    "messages whose nearest label is their own. Excess: how much further a message lies along its own label's "
    "direction "
    "than along the others', in units of the spread between reference texts. Grey: labels shuffled within each "
    "conversation. p is corrected for all layers and sources together. A state at the end of a message has read its "
    "words, so this does not show that the model keeps a feeling: see how it fades, and the controls."
)
FADING = (
    "How much of a turn's label is still in the state some turns later: lag 0 is the turn itself. The layer is the one "
    "with the greatest excess at lag 0, so it was not chosen by what is shown of later turns. Bars: 95 % bootstrap "
    "interval; grey: what shuffled labels give (95 %). Neutral conversations (control) and shuffled orders, where the "
    "scenario has them, tell fading from mere growth of the conversation."
)
