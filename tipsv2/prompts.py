"""Prompt templates and class lists: data only, each with its source.

A template holds "{}" where the name goes; a set of templates is averaged on the unit sphere by Encoder.encode_text.
"""

from __future__ import annotations

# The nine of TIPSv2's zero-shot segmentation (google-deepmind/tips, pytorch/TIPS_zeroshot_segmentation.ipynb, after
# TCL).
_TIPS9 = (
    "itap of a {}.",
    "a bad photo of a {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
    "a photo of many {}.",
    "a photo of {}s.",
)

# The eighty of CLIP's zero-shot ImageNet (openai/CLIP, notebooks/Prompt_Engineering_for_ImageNet.ipynb): most of them
# are a frame with either article, so they are written as frames; the order does not matter to an average.
_BOTH_ARTICLES = (
    "a bad photo of {} {{}}.",
    "a sculpture of {} {{}}.",
    "a low resolution photo of {} {{}}.",
    "a rendering of {} {{}}.",
    "graffiti of {} {{}}.",
    "a cropped photo of {} {{}}.",
    "a tattoo of {} {{}}.",
    "{} embroidered {{}}.",
    "a bright photo of {} {{}}.",
    "a dark photo of {} {{}}.",
    "a drawing of {} {{}}.",
    "{} plastic {{}}.",
    "a close-up photo of {} {{}}.",
    "a black and white photo of {} {{}}.",
    "a painting of {} {{}}.",
    "a pixelated photo of {} {{}}.",
    "a jpeg corrupted photo of {} {{}}.",
    "a blurry photo of {} {{}}.",
    "a photo of {} {{}}.",
    "a good photo of {} {{}}.",
    "{} {{}} in a video game.",
    "a doodle of {} {{}}.",
    "{} origami {{}}.",
    "a sketch of {} {{}}.",
    "{} toy {{}}.",
    "a rendition of {} {{}}.",
    "{} cartoon {{}}.",
    "art of {} {{}}.",
    "{} plushie {{}}.",
    "itap of {} {{}}.",
    "a photo of {} hard to see {{}}.",
    "a photo of {} clean {{}}.",
    "a photo of {} dirty {{}}.",
    "a photo of {} cool {{}}.",
    "a photo of {} large {{}}.",
    "a photo of {} nice {{}}.",
    "a photo of {} weird {{}}.",
    "a photo of {} small {{}}.",
)
_CLIP80 = (
    *(frame.format(article) for frame in _BOTH_ARTICLES for article in ("a", "the")),
    "a photo of many {}.",
    "a photo of my {}.",
    "a photo of one {}.",
    "itap of my {}.",
)

TEMPLATES: dict[str, tuple[str, ...]] = {"none": ("{}",), "tips9": _TIPS9, "clip80": _CLIP80}

# One string a list, so that it can be read beside its source; no name holds a comma.
_CLASSES = {
    # The 150 of ADE20K's scene parsing benchmark, as TIPSv2's zero-shot notebook spells them (google-deepmind/tips,
    # pytorch/TIPS_zeroshot_segmentation.ipynb): the first name of each row of objectInfo150.txt
    # (github.com/CSAILVision/sceneparsing), but "television receiver" for "television".
    "ade20k150": (
        "wall,building,sky,floor,tree,ceiling,road,bed,windowpane,grass,cabinet,sidewalk,person,earth,door,table,"
        "mountain,plant,curtain,chair,car,water,painting,sofa,shelf,house,sea,mirror,rug,field,armchair,seat,fence,"
        "desk,rock,wardrobe,lamp,bathtub,railing,cushion,base,box,column,signboard,chest of drawers,counter,sand,sink,"
        "skyscraper,fireplace,refrigerator,grandstand,path,stairs,runway,case,pool table,pillow,screen door,stairway,"
        "river,bridge,bookcase,blind,coffee table,toilet,flower,book,hill,bench,countertop,stove,palm,kitchen island,"
        "computer,swivel chair,boat,bar,arcade machine,hovel,bus,towel,light,truck,tower,chandelier,awning,streetlight,"
        "booth,television receiver,airplane,dirt track,apparel,pole,land,bannister,escalator,ottoman,bottle,buffet,"
        "poster,stage,van,ship,fountain,conveyer belt,canopy,washer,plaything,swimming pool,stool,barrel,basket,"
        "waterfall,tent,bag,minibike,cradle,oven,ball,food,step,tank,trade name,microwave,pot,animal,bicycle,lake,"
        "dishwasher,screen,blanket,sculpture,hood,sconce,vase,traffic light,tray,ashcan,fan,pier,crt screen,plate,"
        "monitor,bulletin board,shower,radiator,glass,clock,flag"
    ),
    # PASCAL Context's 59 most frequent classes, alphabetically, as the label files number them
    # (github.com/open-mmlab/mmsegmentation, mmseg/datasets/pascal_context.py, PascalContextDataset59), with
    # "pottedplant" and "tvmonitor" spaced as English words.
    "context59": (
        "aeroplane,bag,bed,bedclothes,bench,bicycle,bird,boat,book,bottle,building,bus,cabinet,car,cat,ceiling,chair,"
        "cloth,computer,cow,cup,curtain,dog,door,fence,floor,flower,food,grass,ground,horse,keyboard,light,motorbike,"
        "mountain,mouse,person,plate,platform,potted plant,road,rock,sheep,shelves,sidewalk,sign,sky,snow,sofa,table,"
        "track,train,tree,truck,tv monitor,wall,water,window,wood"
    ),
    # PASCAL VOC's twenty object classes (host.robots.ox.ac.uk/pascal/VOC), spaced as English words.
    "voc20": (
        "aeroplane,bicycle,bird,boat,bottle,bus,car,cat,chair,cow,dining table,dog,horse,motorbike,person,potted plant,"
        "sheep,sofa,train,tv monitor"
    ),
    # COCO-Stuff's 80 things and 91 stuffs, as written in its labels.txt (github.com/nightrome/cocostuff) without the
    # eleven things nobody annotated; the order of mmsegmentation's mmseg/datasets/coco_stuff.py.
    "cocostuff171": (
        "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,"
        "parking meter,bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,"
        "suitcase,frisbee,skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,"
        "tennis racket,bottle,wine glass,cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,"
        "hot dog,pizza,donut,cake,chair,couch,potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,"
        "cell phone,microwave,oven,toaster,sink,refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush,"
        "banner,blanket,branch,bridge,building-other,bush,cabinet,cage,cardboard,carpet,ceiling-other,ceiling-tile,"
        "cloth,clothes,clouds,counter,cupboard,curtain,desk-stuff,dirt,door-stuff,fence,floor-marble,floor-other,"
        "floor-stone,floor-tile,floor-wood,flower,fog,food-other,fruit,furniture-other,grass,gravel,ground-other,hill,"
        "house,leaves,light,mat,metal,mirror-stuff,moss,mountain,mud,napkin,net,paper,pavement,pillow,plant-other,"
        "plastic,platform,playingfield,railing,railroad,river,road,rock,roof,rug,salad,sand,sea,shelf,sky-other,"
        "skyscraper,snow,solid-other,stairs,stone,straw,structural-other,table,tent,textile-other,towel,tree,vegetable,"
        "wall-brick,wall-concrete,wall-other,wall-panel,wall-stone,wall-tile,wall-wood,water-other,waterdrops,"
        "window-blind,window-other,wood"
    ),
    # The nineteen classes Cityscapes evaluates (github.com/mcordts/cityscapesScripts, helpers/labels.py).
    "cityscapes19": (
        "road,sidewalk,building,wall,fence,pole,traffic light,traffic sign,vegetation,terrain,sky,person,rider,car,"
        "truck,bus,train,motorcycle,bicycle"
    ),
    # A dozen everyday surfaces and things, for a first look at any photograph; ours.
    "everyday": "sky,grass,tree,water,road,building,person,dog,cat,car,food,wall",
}
CLASS_LISTS: dict[str, tuple[str, ...]] = {name: tuple(names.split(",")) for name, names in _CLASSES.items()}
