"""The themes of simulated artworks: what they link to and the words that show them.

A theme's label never stands in a caption: a model has to find out what belongs together. Labels are no genre's
name either, for captions may speak of genres.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Theme:
    """What an artwork can show and a user can like."""

    label: str
    genres: dict[str, float]
    """Weight of the genres that go with it."""
    subjects: tuple[str, ...]
    actions: tuple[str, ...]
    settings: tuple[str, ...]
    objects: tuple[str, ...]
    lights: tuple[str, ...]
    moods: tuple[str, ...]


THEMES = (
    Theme(
        "tenderness",
        {"Romance": 1.0, "Drama": 0.3},
        ("a young couple", "two lovers", "a bride and groom", "two teenagers on a pier", "an old married pair"),
        ("lean close for a kiss", "hold hands across a table", "dance cheek to cheek", "share one umbrella"),
        ("a rose garden", "a balcony over a canal", "a candlelit restaurant", "a park bench in spring"),
        ("a bunch of red roses", "a pair of wedding rings", "a folded love letter", "two wine glasses"),
        ("soft pink light", "the glow of candles", "a warm evening sun", "strings of little lamps"),
        ("gentle and in love", "warm and intimate", "full of longing", "sweet and dreamy"),
    ),
    Theme(
        "peril",
        {"Thriller": 1.0, "Crime": 0.6, "Horror": 0.4, "Action": 0.3},
        ("a hunted man", "a woman with a gun", "a masked stranger", "a frightened witness", "a detective at bay"),
        ("looks back over a shoulder", "runs from the headlights", "hides behind a door", "aims into the dark"),
        ("an underground car park", "a narrow alley", "an empty warehouse", "a motel at night"),
        ("a bloodied knife", "a ringing telephone", "a cracked windscreen", "a length of rope"),
        ("cold blue neon", "a single bare bulb", "the flash of a torch", "harsh headlights"),
        ("tense and threatening", "breathless with fear", "cold and watchful", "about to explode"),
    ),
    Theme(
        "wonder",
        {"Fantasy": 1.0, "Sci-Fi": 0.8, "Animation": 0.4},
        ("a child with a lantern", "an astronaut", "a winged horse", "a robot with kind eyes", "a young wizard"),
        ("gazes up at two moons", "floats above the clouds", "reaches out to a glowing orb", "opens a hidden gate"),
        ("a floating city", "a forest of giant mushrooms", "the rings of a planet", "a crystal cave"),
        ("a spell book", "a silver spaceship", "a glowing portal", "a dragon's egg"),
        ("shimmering starlight", "violet and gold auroras", "a halo of sparks", "light from another world"),
        ("magical and vast", "strange and luminous", "full of awe", "like a fairy tale"),
    ),
    Theme(
        "mirth",
        {"Comedy": 1.0, "Animation": 0.3, "Children's": 0.3},
        ("a clumsy waiter", "a giggling schoolboy", "a man in a chicken suit", "a grinning dog", "a silly uncle"),
        ("slips on a banana skin", "bursts out laughing", "pulls a funny face", "throws a cream pie"),
        ("an untidy kitchen", "an office party", "a school corridor", "a crowded campsite"),
        ("a whoopee cushion", "a pair of huge glasses", "a toppled cake", "a rubber chicken"),
        ("bright yellow light", "candy colours", "cheerful daylight", "the flash of a party photo"),
        ("playful and silly", "light and cheeky", "ready for a joke", "gleeful and absurd"),
    ),
    Theme(
        "grief",
        {"Drama": 0.8, "War": 0.4},
        (
            "a widow in black",
            "a father with his head bowed",
            "a weeping girl",
            "a nurse at a bedside",
            "an old soldier",
        ),
        ("wipes away a tear", "kneels at a grave", "clutches a photograph", "stares through the rain"),
        ("a cemetery in autumn", "a hospital ward", "an empty nursery", "a house with drawn curtains"),
        ("a wilted flower", "a black veil", "an unworn pair of shoes", "a letter with a broken seal"),
        ("thin grey daylight", "the light of a rainy window", "a fading dusk", "pale winter light"),
        ("heavy with loss", "quiet and mournful", "tearful and raw", "heartbroken"),
    ),
    Theme(
        "kinship",
        {"Children's": 1.0, "Animation": 0.5, "Comedy": 0.2, "Drama": 0.2},
        (
            "a mother and her children",
            "two brothers",
            "a grandfather and a boy",
            "a family of bears",
            "twin sisters",
        ),
        ("sit down to supper", "hug in a doorway", "build a tree house", "carry a puppy home"),
        ("a farmhouse kitchen", "a garden with a swing", "a snowy yard", "a caravan by a lake"),
        ("a patchwork quilt", "a birthday cake", "a worn teddy bear", "a row of little boots"),
        ("homely lamplight", "morning sun through curtains", "the glow of a fireplace", "clear summer light"),
        ("snug and safe", "cosy and close", "proud of one another", "like a homecoming"),
    ),
    Theme(
        "enigma",
        {"Mystery": 1.0, "Film-Noir": 0.8, "Thriller": 0.4},
        (
            "a detective in a trench coat",
            "a veiled lady",
            "a silhouette",
            "a butler with a tray",
            "a man without a face",
        ),
        ("studies a footprint", "vanishes into fog", "listens at a keyhole", "holds up a magnifying glass"),
        ("a foggy pier", "an old mansion", "a library with a secret door", "a hotel corridor"),
        ("a torn map", "a locked box", "a broken pocket watch", "a playing card"),
        ("long black shadows", "moonlight through blinds", "smoke and half light", "one lit window"),
        ("puzzling and hushed", "full of secrets", "shadowy and sly", "like an unanswered question"),
    ),
    Theme(
        "voyage",
        {"Adventure": 1.0, "Western": 0.6},
        ("a bearded explorer", "a girl with a rucksack", "a ship's captain", "a caravan of camels", "a lone rider"),
        ("crosses a rope bridge", "climbs towards a summit", "sets sail at dawn", "hacks a path through vines"),
        ("an endless desert", "a jungle temple", "a stormy ocean", "a mountain pass"),
        ("a brass compass", "a treasure chest", "an old sea chart", "a coil of climbing rope"),
        ("blazing noon sun", "a golden sunrise", "light through palm leaves", "a wide bright sky"),
        ("daring and free", "restless and brave", "dusty and sunburnt", "on the way to far places"),
    ),
    Theme(
        "solitude",
        {"Documentary": 0.8, "Drama": 0.5, "Western": 0.3},
        ("a man alone", "a lighthouse keeper", "a woman at a window", "a hermit", "a monk in grey"),
        ("walks along an empty shore", "eats at a table for one", "stares at the horizon", "waits on a platform"),
        ("a wide snowfield", "a deserted diner", "a cabin without neighbours", "a bare apartment"),
        ("an unmade bed", "a single chair", "a cold cup of coffee", "a silent radio"),
        ("flat white light", "the last light of day", "a distant street lamp", "a dim television"),
        ("silent and remote", "still and spare", "far from everyone", "calm but empty"),
    ),
    Theme(
        "spectacle",
        {"Action": 1.0, "Sci-Fi": 0.5, "War": 0.3},
        ("a stunt driver", "a hero in armour", "a squad of commandos", "a giant machine", "a boxer"),
        ("leaps from a burning roof", "races through an explosion", "hangs from a helicopter", "smashes through glass"),
        ("a collapsing bridge", "a city under attack", "a speeding train", "a stadium in flames"),
        ("a fireball", "a roaring motorbike", "a rocket launcher", "a shower of sparks"),
        ("orange firelight", "searchlights", "the glare of an explosion", "electric white flashes"),
        ("huge and thunderous", "fast and furious", "full of force", "larger than life"),
    ),
    Theme(
        "melody",
        {"Musical": 1.0, "Romance": 0.2},
        ("a singer in sequins", "a jazz trio", "a tap dancer", "a boy with a violin", "a chorus line"),
        ("sings into a microphone", "twirls under the curtain", "plays a grand piano", "bows to the crowd"),
        ("a theatre stage", "a smoky club", "a concert hall", "a street with buskers"),
        ("a golden trumpet", "a pair of dancing shoes", "a sheet of music", "an old gramophone"),
        ("a bright spotlight", "footlights", "coloured stage lamps", "a glittering mirror ball"),
        ("rhythmic and glamorous", "like the start of a song", "swinging and loud", "ready to dance"),
    ),
    Theme(
        "strife",
        {"War": 1.0, "Crime": 0.7, "Western": 0.5, "Horror": 0.4},
        ("two rival gangs", "soldiers in the mud", "a sheriff and an outlaw", "rebels with a flag", "the men of a mob"),
        ("charge across a trench", "draw at the same moment", "clash with raised fists", "stand over a fallen foe"),
        ("a muddy battlefield", "a ruined village", "a saloon", "barricades in a square"),
        ("a row of rifles", "a torn flag", "a dented helmet", "brass knuckles"),
        ("smoke and red dusk", "muzzle flashes", "an iron grey sky", "the light of burning houses"),
        ("brutal and grim", "hard and unforgiving", "bitter and defiant", "loud with anger"),
    ),
)

COMPOSITIONS = (
    "The picture is framed as a close-up.",
    "Everything is seen from far above.",
    "The camera looks up from the ground.",
    "The figures stand in the left third.",
    "The composition is almost symmetrical.",
    "A wide shot leaves much empty space.",
    "The foreground is out of focus.",
    "The edges fade into a dark border.",
    "The image is split by a diagonal line.",
    "Small figures are set against a large background.",
    "The view is slightly tilted.",
    "A thin frame runs around it.",
)
TYPOGRAPHIES = (
    "The title runs along the bottom in thin white capitals.",
    "The title stands at the top in bold letters.",
    "There is no text apart from the title in the corner.",
    "The name is written by hand across the middle.",
    "The letters of the title are tall and narrow.",
    "The title is small and set to the right.",
    "The lettering is old-fashioned, with serifs.",
    "The title is printed in block letters over the lower third.",
)
DETAILS = (
    "The texture looks like an oil painting.",
    "It has the grain of an old photograph.",
    "The lines are clean, as in a drawing.",
    "The contrast is high.",
    "The colours are slightly washed out.",
    "There are scratches along the edges.",
    "Fine rain can be made out on closer look.",
    "The clothes are from another decade.",
    "A bird crosses the upper half.",
    "The faces are lit from one side.",
    "The ground is wet and mirrors the scene.",
    "Dust hangs in the air.",
    "A reflection can be seen in a pane of glass.",
    "The background is painted in broad strokes.",
)
TURNS = (
    "Nothing stays as it was.",
    "A stranger knocks at the door.",
    "The past is closer than it seems.",
    "An old promise has to be kept.",
    "Time is running out.",
    "Not everybody tells the truth.",
    "It takes one night to find out.",
    "Two families are drawn into it.",
    "A letter arrives too late.",
    "In the end somebody has to choose.",
    "The town has other plans.",
    "Help comes from an unlikely side.",
)
CUTS = (
    "The logo appears on black.",
    "A drum beats faster and faster.",
    "There is a long silence.",
    "Names flash by in white letters.",
    "The screen goes dark.",
    "A door slams and the title drops.",
    "The shots get shorter.",
    "A date is shown at the end.",
    "Somebody laughs off screen.",
    "The last shot is held for a while.",
    "A single note is held throughout.",
    "Critics are quoted between two shots.",
)
