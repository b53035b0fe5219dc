"""Names of the nouns where the Unicode label of the emoji is not the plain name of the thing, data only.

Unicode labels the drawing: "closed book", "lion face", "red apple", "couch and lamp". One line per noun, names in the
order of LANGUAGES, an empty place keeps the label. Read by build.py alone, which writes all names to names.json.
"""

LANGUAGES = tuple("de es fr it pt nl pl sv ru uk ja ko zh".split())

CORRECTIONS = {
    # animals
    "wolf": "||||lobo||wilk|varg|волк||オオカミ|늑대|",
    "fox": "||||raposa||lis|räv|лиса||キツネ|여우|",
    "raccoon": "||||||||енот||||",
    "lion": "||lion||leão||lew|lejon|лев||ライオン|사자|",
    "unicorn": "||||unicórnio||jednorożec|enhörning|единорог||ユニコーン|유니콘|",
    "cow": "||||||||||牛||",
    "sheep": "|||||schaap||får|||||绵羊",
    "camel": "Kamel|camello|chameau|cammello||kameel||kamel|верблюд|верблюд|||",
    "llama": "||||||||||||羊驼",
    "mouse": "||||||||||ネズミ||",
    "hedgehog": "||||ouriço||||||||",
    "bear": "||||urso||niedźwiedź|björn|медведь||クマ|곰|",
    "polar bear": "||||||||белый медведь||||",
    "koala": "||||||||коала||||",
    "panda": "||||panda||panda|panda|панда||パンダ|판다|",
    "chick": "||||pintinho||||цыпленок|курча|||",
    "dove": "||||pomba||||||||",
    "frog": "||||||żaba|groda|лягушка||カエル|개구리|",
    "dinosaur": "Dinosaurier|dinosaurio|dinosaure|dinosauro|dinossauro|dinosaurus|dinozaur|dinosaurie|динозавр|динозавр"
    "|恐竜|공룡|恐龙",
    "lobster": "||||||||||ロブスター||",
    "caterpillar": "|oruga||bruco|lagarta|rups||larv||гусениця|||",
    "bee": "|||||bij|||||||",
    "scorpion": "||||||skorpion||||||",
    # plants
    "lotus": "||||||||||ハス||",
    "tree": "Baum|árbol|arbre|albero|árvore|boom|drzewo|träd||дерево|木||树",
    "pine tree": "Kiefer|pino|pin|pino|pinheiro|den|sosna|tall|сосна|сосна|松の木||",
    "clover": "Klee|trébol|trèfle|trifoglio|trevo|klaver|koniczyna|klöver|клевер|конюшина|クローバー|클로버|三叶草",
    "mushroom": "Pilz||||||||||||",
    # food
    "orange": "Orange|naranja|orange|arancia|laranja|sinaasappel|pomarańcza|apelsin|апельсин|апельсин|オレンジ|오렌지"
    "|橙子",
    "apple": "Apfel|manzana|pomme|mela|maçã|appel|jabłko|äpple|яблоко|яблуко|リンゴ|사과|苹果",
    "cherry": "Kirsche|cereza|cerise|ciliegia||kers|wiśnia|||вишня|||",
    "blueberry": "Blaubeere|arándano|myrtille|mirtillo|mirtilo|blauwe bes|||||||",
    "corn": "Mais|maíz|maïs|mais|milho|maïs|kukurydza|majs|кукуруза|кукурудза|||",
    "chili pepper": "||piment||||||||||辣椒",
    "peanut": "|cacahuete|cacahuète|arachide||pinda|orzech ziemny|jordnöt|||||",
    "bread": "|pan||pane|||||||パン||",
    "pancake": "|tortita|pancake|||pannenkoek|naleśnik|pannkaka|блин|млинець|||",
    "cheese": "Käse|queso|fromage|formaggio|queijo|kaas|ser|ost|сыр|сир|チーズ|치즈|奶酪",
    "drumstick": "|||||||||куряча ніжка|||鸡腿",
    "steak": "Steak|filete|steak|bistecca|bife|biefstuk|stek|biff|стейк|стейк|ステーキ|스테이크|牛排",
    "pizza": "|||||pizza||pizza|||||",
    "taco": "||||||||||||塔可",
    "fried egg": "Spiegelei|huevo frito||uovo fritto||gebakken ei|jajko sadzone|stekt ägg|яичница|яєчня|目玉焼き"
    "|계란 프라이|",
    "salad": "||salade|insalata|salada|salade||sallad|салат|салат|サラダ|샐러드|沙拉",
    "rice": "Reis|arroz|riz|riso|arroz|rijst|ryż|ris|рис|рис|||",
    "noodle soup": "Nudelsuppe|sopa de fideos|soupe de nouilles|zuppa di noodle|sopa de macarrão|noedelsoep"
    "|zupa z makaronem|nudelsoppa|суп с лапшой|суп із локшиною||라면|汤面",
    "ice cream": "|||gelato|||||||||",
    "cake": "Torte|tarta|gâteau|torta|bolo|cake|tort|tårta|торт|торт|ケーキ|케이크|蛋糕",
    "birthday cake": "||||||||именинный торт||||",
    "pie": "|||crostata|||||||||",
    "chocolate": "Schokolade|chocolate|chocolat|||chocolade|czekolada|choklad||шоколад||초콜릿|",
    "honey": "Honig|miel|miel|miele|mel|honing|miód|honung||мед|||",
    "milk": "Milch|leche|lait|latte|leite|melk|mleko|mjölk|молоко|молоко|牛乳|우유|牛奶",
    "coffee": "Kaffee|café|café|caffè||koffie|kawa|kaffe|кофе|кава|コーヒー|커피|咖啡",
    "wine": "Wein|vino|vin|vino|vinho|wijn|wino|vin|вино|вино|ワイン|와인|",
    "cocktail": "Cocktail|cóctel||||cocktail|koktajl|cocktail||коктейль|カクテル||",
    "beer": "Bier|cerveza|bière|birra||bier|piwo|öl|пиво|пиво|ビール|맥주|",
    "soda": "Limonade|refresco|soda|bibita|refrigerante|frisdrank|napój gazowany|läsk|газировка|газована вода|ソーダ"
    "|탄산음료|汽水",
    # vehicles
    "locomotive": "Lokomotive|locomotora||||||lok||локомотив|機関車||火车头",
    "train": "||||||||||電車||",
    "tram": "Straßenbahn|tranvía|tramway|tram||tram|tramwaj|spårvagn|трамвай|трамвай||트램|",
    "ambulance": "||||||karetka||скорая помощь|швидка допомога|||",
    "fire engine": "|camión de bomberos|||caminhão de bombeiros||||||||",
    "pickup truck": "|||||||||пікап|ピックアップトラック||皮卡",
    "truck": "Lastwagen|camión|camion||caminhão|vrachtwagen|ciężarówka|lastbil||вантажівка||트럭|卡车",
    "motorcycle": "|||||motorfiets|||||||",
    "wheelchair": "Rollstuhl|silla de ruedas|fauteuil roulant|sedia a rotelle|cadeira de rodas||wózek inwalidzki"
    "|rullstol|инвалидная коляска|інвалідний візок|車椅子|휠체어|轮椅",
    "sled": "||||||||||そり||",
    # buildings and the street
    "castle": "Burg|castillo|||||||||城|성|城堡",
    "traffic light": "Ampel||feu tricolore|semaforo|semáforo|verkeerslicht|sygnalizacja świetlna|trafikljus|светофор"
    "|світлофор|信号機|신호등|红绿灯",
    "fuel pump": "|||pompa di benzina|bomba de gasolina|benzinepomp|||бензоколонка||給油機|주유기|加油机",
    "life buoy": "||||||||||浮き輪|구명 튜브|",
    "mailbox": "Briefkasten|buzón|boîte aux lettres|cassetta postale|caixa de correio|brievenbus|skrzynka pocztowa"
    "|brevlåda|почтовый ящик|поштова скринька|郵便受け|우편함|邮箱",
    # sport and play
    "soccer ball": "||||||||футбольный мяч||サッカーボール||",
    "baseball": "|pelota de béisbol|balle de baseball||||piłka baseballowa||бейсбольный мяч||野球ボール||",
    "basketball": "||ballon de basket||||piłka do koszykówki||баскетбольный мяч|||농구공|",
    "volleyball": "||ballon de volley||||piłka do siatkówki||волейбольный мяч||||",
    "american football": "||ballon de football américain|palla da football americano|||piłka do futbolu amerykańskiego"
    "||мяч для американского футбола||アメフトボール||",
    "boxing glove": "||||||||||ボクシンググローブ||",
    "dartboard": "Dartscheibe||cible||alvo|dartbord|tarcza do rzutek|darttavla||мішень|ダーツボード|다트판|飞镖靶",
    "kite": "|||||||pappersdrake|||凧||",
    "game controller": "|mando|manette||controle de videogame|gamecontroller|pad do gier|handkontroll|геймпад|геймпад"
    "|ゲームコントローラー|게임 컨트롤러|",
    "die": "Würfel||dé||dado|||tärning|||||",
    "snowman": "Schneemann||bonhomme de neige|pupazzo di neve|boneco de neve|sneeuwpop|bałwan|snögubbe||сніговик"
    "||눈사람|",
    "pumpkin": "Kürbis|calabaza||zucca|abóbora|pompoen|dynia|pumpa|тыква|гарбуз|かぼちゃ|호박|南瓜",
    "balloon": "||ballon||||||||||",
    "gift": "|||||cadeau|prezent|present|||||",
    "medal": "Medaille|medalla|médaille|medaglia|medalha|medaille|medal|medalj|медаль|медаль||메달|",
    "yarn": "||pelote de laine||||||||||",
    # clothes
    "glasses": "||lunettes|occhiali|||||||||",
    "t-shirt": "|||||||||футболка|||",
    "jeans": "|||||||||||청바지|",
    "glove": "Handschuh|guante|gant|guanto|luva|handschoen|rękawiczka||перчатка|рукавичка|||",
    "sock": "Socke|calcetín|chaussette|calzino|meia|sok|skarpetka|socka|носок|шкарпетка|靴下||",
    "backpack": "Rucksack|mochila|sac à dos|||rugzak|plecak||рюкзак|рюкзак|リュックサック|배낭|背包",
    "suitcase": "Koffer|maleta|valise|||koffer|walizka|resväska|чемодан|валіза||여행 가방|",
    "sneaker": "||||tênis||||кроссовок||||",
    "hiking boot": "|||||||||похідний черевик|||",
    "high heel": "||||||||туфля на каблуке||||",
    "hat": "Hut|sombrero|chapeau|cappello|chapéu|hoed|kapelusz|hatt|шляпа|капелюх|帽子|모자|帽子",
    "top hat": "|||||||||||실크해트|",
    "baseball cap": "|gorra|casquette|cappellino|||||||||",
    "helmet": "Helm|casco|casque|elmetto|capacete|helm|hełm|hjälm|каска|шолом|ヘルメット|헬멧|头盔",
    "diamond": "Diamant|diamante|diamant|diamante|diamante|diamant|diament|diamant|бриллиант|діамант|ダイヤモンド"
    "|다이아몬드|钻石",
    "umbrella": "||parapluie||||||||||",
    # sound, devices, paper
    "bell": "||||||||колокол|дзвін|||",
    "headphones": "|auriculares|écouteurs|||||hörlurar|||||",
    "drum": "||tambour||||||||||",
    "telephone": "|||telefono|telefone||||||電話||",
    "television": "|||||televisie|telewizor||||||",
    "magnifying glass": "Lupe|lupa|loupe|lente d’ingrandimento|lupa|vergrootglas|lupa|förstoringsglas||лупа|虫眼鏡"
    "|돋보기|放大镜",
    "book": "Buch|libro|livre|libro|livro|boek|książka|bok|книга|книга|本|책|书",
    "banknote": "Geldschein|billete|billet|banconota|nota|bankbiljet|banknot|sedel|банкнота|банкнота|紙幣|지폐|钞票",
    "pen": "||||||||ручка|ручка|||",
    "padlock": "Vorhängeschloss|candado|cadenas|lucchetto||hangslot|kłódka|hänglås|навесной замок|навісний замок"
    "|南京錠||挂锁",
    # tools and science
    "sword": "Schwert|espada|épée|spada|espada|zwaard|miecz|svärd|меч|меч|剣|검|剑",
    "saw": "Säge|sierra||sega||zaag|piła|såg|пила|пила||톱|锯子",
    "magnet": "||||||||||磁石||",
    "pill": "||||||pigułka||таблетка||||",
    "globe": "Globus|globo terráqueo|globe|mappamondo|globo|wereldbol|globus|jordglob|глобус||地球儀|지구본|地球仪",
    # the home
    "sofa": "Sofa|sofá|canapé|divano|sofá|bank|kanapa|soffa|диван|диван|ソファ|소파|沙发",
    "chair": "|||||stoel|||||||",
    "toilet paper": "Toilettenpapier|papel higiénico|papier toilette|carta igienica|papel higiênico|toiletpapier"
    "|papier toaletowy|toalettpapper|туалетная бумага|туалетний папір||두루마리 휴지|卫生纸",
    "vase": "Vase|jarrón|vase|vaso|vaso|vaas|wazon|vas|ваза|ваза||꽃병|花瓶",
    "knife": "Messer|cuchillo|couteau|coltello|faca|mes|nóż|kniv||ніж|||刀",
    "spoon": "||||||||||||勺子",
    "clock": "Uhr|reloj|horloge|orologio|relógio|klok|zegar|klocka|часы|годинник|時計|시계|时钟",
    "watch": "|reloj de pulsera||orologio da polso||||||||손목시계|",
    "hourglass": "|reloj de arena||||||timglas||||모래시계|",
    # the sky
    "moon": "Mond|luna|lune|luna|lua|maan|księżyc|måne|луна|місяць|月|달|月亮",
    "planet": "Planet|planeta|planète|pianeta|planeta|planeet|planeta|planet|планета|планета|惑星|행성|行星",
    "star": "Stern||||estrela|ster|||звезда||星||",
}
