"""Lists of names for generated people, schools and courses. All names are invented or common.

Does not belong here: drawing from the lists (`people.py`, `generate.py`).
"""

FIRST = (
    *("Aaliyah", "Aaron", "Abigail", "Adrian", "Aisha", "Alejandro", "Alice", "Amara", "Amir", "Ana", "Andre", "Anika", "Arjun", "Ava"),
    *("Beatriz", "Ben", "Bianca", "Caleb", "Camila", "Carlos", "Chloe", "Daniel", "Darius", "Diego", "Eleanor", "Elena", "Eli", "Emma"),
    *("Fatima", "Felix", "Gabriel", "Grace", "Hana", "Henry", "Ibrahim", "Imani", "Isaac", "Isabella", "Ivan", "Jada", "James", "Jin"),
    *("Jonah", "Josephine", "Kai", "Keisha", "Kofi", "Lamar", "Layla", "Leo", "Lucia", "Luis", "Maya", "Mei", "Mia", "Mohammed", "Nadia"),
    *("Naomi", "Nia", "Noah", "Olivia", "Omar", "Owen", "Paula", "Priya", "Quinn", "Rafael", "Rosa", "Ruth", "Samir", "Sara", "Sofia"),
    *("Tariq", "Theo", "Thomas", "Uma", "Valentina", "Victor", "Wei", "Willow", "Xavier", "Yara", "Yusuf", "Zara", "Zoe"),
)
LAST = (
    *("Abbott", "Adams", "Aguilar", "Ahmed", "Allen", "Alvarez", "Anderson", "Bailey", "Baker", "Banerjee", "Barnes", "Bell", "Bennett"),
    *("Brooks", "Brown", "Butler", "Campbell", "Carter", "Castillo", "Chan", "Chavez", "Chen", "Clark", "Coleman", "Collins", "Cook"),
    *("Cooper", "Cruz", "Davis", "Delgado", "Diaz", "Edwards", "Evans", "Fernandez", "Fisher", "Flores", "Foster", "Garcia", "Gomez"),
    *("Gonzalez", "Gray", "Green", "Griffin", "Gupta", "Hall", "Harris", "Hassan", "Henderson", "Hernandez", "Hill", "Howard", "Huang"),
    *(
        "Hughes",
        "Jackson",
        "James",
        "Jenkins",
        "Johnson",
        "Jones",
        "Kelly",
        "Khan",
        "Kim",
        "King",
        "Kumar",
        "Lee",
        "Lewis",
        "Lopez",
        "Martin",
    ),
    *("Martinez", "Miller", "Mitchell", "Moore", "Morales", "Morgan", "Murphy", "Nelson", "Nguyen", "Okafor", "Ortiz", "Parker", "Patel"),
    *("Perez", "Phillips", "Powell", "Price", "Ramirez", "Reed", "Reyes", "Rivera", "Roberts", "Robinson", "Rodriguez", "Rogers", "Ruiz"),
    *("Sanchez", "Sanders", "Scott", "Shah", "Silva", "Singh", "Smith", "Stewart", "Sullivan", "Taylor", "Thomas", "Thompson", "Torres"),
    *(
        "Tran",
        "Turner",
        "Walker",
        "Ward",
        "Washington",
        "Watson",
        "White",
        "Williams",
        "Wilson",
        "Wood",
        "Wright",
        "Yang",
        "Young",
        "Zhang",
    ),
)

# Names like those in real rosters, on which naive code fails. Characters that an editor hides or changes are written as escapes.
ODD: tuple[tuple[str, str], ...] = (
    ("Zoë", "Núñez-Ibáñez"),
    ("Siobhán", "O'Brien"),
    ("D\u2019Andre", "O\u2019Neil"),  # typographic apostrophes
    ("小明", "王"),
    ("さくら", "山田"),
    ("지우", "김"),
    ("مريم", "الحسيني"),  # right to left
    ("דוד", "כהן"),
    ("Ana 🌻", "Flores"),
    ("👩\u200d🎓 Robin", "Lee"),  # emoji joined by a zero-width joiner
    ("A", "B"),
    ("X", "Æ"),
    ("Wolfeschlegelsteinhausenbergerdorff" * 6, "Keihanaikukauakahihuliheekahaunaele" * 8),
    ("  Maria", "Lopez  "),
    ("Rene\u0301", "Mu\u0308ller"),  # NFD: the accent is a character of its own
    ("Mary\tAnn", "Smith"),
    ("Ni\u200dna", "Rao"),  # zero-width joiner inside a word
    ("Łukasz", "Święcicki"),
    ("İpek", "Işık"),  # Turkish: lower-casing depends on the locale
    ("Nguyễn", "Thị Ánh"),
    ("Jean  Luc", "de la Cruz y Vega"),
    ("Robert'); DROP TABLE users;--", "Tables"),
    ("\\N", "Null"),
    ("NULL", "None"),
    ('Jo"e', "Back\\slash"),
    ("Straße", "Groß"),
)

PLACES = (
    *("Aspen", "Bayside", "Birch", "Cedar", "Clearwater", "Eastgate", "Elm", "Fairview", "Glenwood", "Harbor", "Hawthorne", "Highland"),
    *("Juniper", "Lakeview", "Laurel", "Lincoln", "Magnolia", "Maple", "Meadow", "Mesa", "Northside", "Oak Hill", "Orchard", "Pine"),
    *("Prairie", "Redwood", "Ridge", "River", "Sierra", "Spring", "Summit", "Sunrise", "Union", "Valley", "Westbrook", "Willow"),
)

# (course, Clever subject)
COURSES = (
    *(("Reading", "english/language arts"), ("Writing", "english/language arts"), ("Mathematics", "math"), ("Algebra", "math")),
    *(("Life Science", "science"), ("Physics", "science"), ("History", "social studies"), ("Civics", "social studies")),
    *(("Spanish", "language"), ("Homeroom", "homeroom/advisory"), ("Typing", "technology and engineering"), ("PE", "PE and health")),
    *(("Art", "arts and music"), ("Band", "arts and music"), ("Advisory", ""), ("Study Hall", "other")),
)
