"""Categories of common English words, made for this project; no word is in two of them."""

# tagged by hand; a word with a more frequent meaning elsewhere is left out
_LISTS = {
    "mammals": "dog cat horse cow lion mouse tiger bear wolf fox rabbit goat sheep pig monkey elephant camel deer "
    "donkey rat squirrel whale dolphin kitten puppy leopard zebra giraffe",
    "birds": "robin sparrow eagle owl crow duck hawk pigeon chicken goose swan parrot raven penguin falcon gull turkey "
    "heron ostrich peacock",
    "fish": "salmon trout shark cod tuna herring carp eel sardine mackerel",
    "insects and reptiles": "ant bee moth beetle wasp cricket butterfly spider mosquito snake lizard turtle crocodile "
    "gecko cobra frog worm alligator tortoise",
    "plants": "oak pine birch elm maple willow cedar tulip daisy lily rose violet grass fern moss ivy orchid bamboo "
    "palm fir lavender poppy",
    "food": "bread cheese butter rice soup meat apple banana orange lemon sugar salt pepper honey cake pie salad egg "
    "beef pork pasta pizza chocolate potato tomato onion carrot cherry grape peach",
    "body parts": "hand arm leg foot head eye ear nose mouth tooth tongue finger knee shoulder elbow neck stomach lip "
    "thumb wrist ankle skin bone brain lung liver kidney",
    "colours": "red blue green yellow white black brown grey pink purple crimson scarlet turquoise beige",
    "numbers": "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
    "twenty thirty forty fifty hundred thousand million",
    "times": "monday tuesday wednesday thursday friday saturday sunday january february april june july august "
    "september october november december today tomorrow yesterday week month year hour minute century decade",
    "family": "mother father sister brother daughter son uncle aunt cousin grandmother grandfather wife husband nephew "
    "niece parent",
    "emotions": "happy sad angry afraid glad cheerful unhappy gloomy furious scared frightened proud ashamed jealous "
    "lonely anxious calm surprised amazed disgusted grateful bored excited nervous worried delighted",
    "movements": "walk run jump swim fly climb crawl march dance slide hop gallop stroll wander sprint leap",
    "speech": "say tell speak talk ask shout whisper argue explain mention describe announce reply murmur scream",
    "clothes": "shirt coat hat shoe dress skirt jacket trousers glove scarf sock boot sweater cloak apron",
    "tools and furniture": "hammer saw drill axe spade shovel knife fork spoon table chair bed desk lamp shelf sofa "
    "bench cupboard drawer",
    "vehicles": "car bus train truck bicycle boat ship plane tram ferry van wagon lorry taxi helicopter canoe",
    "instruments": "flute drum violin piano guitar trumpet harp cello organ oboe clarinet banjo",
    "weather": "rain snow wind storm cloud fog thunder lightning hail frost breeze sunshine",
    "professions": "doctor teacher lawyer farmer baker nurse soldier judge carpenter engineer painter tailor butcher "
    "priest sailor miner",
    "places": "house garden kitchen church school hospital bridge castle tower village town city street harbour farm "
    "library museum palace prison temple",
}
CATEGORIES = {name: tuple(words.split()) for name, words in _LISTS.items()}
