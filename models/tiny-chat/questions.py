"""What tiny-chat is asked, and what it answers.

A family is a kind of question. `draw_conversation` makes up conversations to train on; `families` lists the questions
that the trained model has to answer exactly. How a conversation becomes text is left to the chat template.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

Message = dict[str, Any]
Turn = list[Message]  # a question, its answer, and what belongs to them: tool results, a second question
Case = dict[str, Any]  # messages, tools, enable_thinking: the arguments of a chat template


def entries(text: str) -> list[str]:
    return text.replace("\n", "|").split("|")


def pairs(text: str) -> dict[str, str]:
    return dict(entry.split(" = ") for entry in entries(text))


CAPITALS = pairs("""Argentina = Buenos Aires|Australia = Canberra|Austria = Vienna|Belgium = Brussels|Brazil = Brasilia
Bulgaria = Sofia|Canada = Ottawa|Chile = Santiago|China = Beijing|Colombia = Bogota|Croatia = Zagreb|Cuba = Havana
Denmark = Copenhagen|Egypt = Cairo|Estonia = Tallinn|Finland = Helsinki|France = Paris|Germany = Berlin|Ghana = Accra
Greece = Athens|Hungary = Budapest|Iceland = Reykjavik|India = New Delhi|Indonesia = Jakarta|Ireland = Dublin
Italy = Rome|Japan = Tokyo|Kenya = Nairobi|Latvia = Riga|Mexico = Mexico City|Mongolia = Ulaanbaatar|Nepal = Kathmandu
Norway = Oslo|Peru = Lima|Poland = Warsaw|Portugal = Lisbon|Romania = Bucharest|Spain = Madrid|Sweden = Stockholm
Switzerland = Bern|Thailand = Bangkok|Turkey = Ankara|Ukraine = Kyiv|Vietnam = Hanoi""")
CITIES = [*CAPITALS.values(), *entries("London|New York|San Francisco|Boston|Zürich|São Paulo|Munich|Sydney")]
SKIES = entries("sunny|rainy|cloudy|foggy|windy|stormy|snowy|clear")
SOUNDS = pairs("""bee = Buzz!|cat = Meow!|cow = Moo!|crow = Caw!|dog = Woof!|donkey = Hee-haw!|duck = Quack!
frog = Ribbit!|goat = Bleat!|hen = Cluck!|horse = Neigh!|lion = Roar!|mouse = Squeak!|owl = Hoot!|pig = Oink!
rooster = Cock-a-doodle-doo!|sheep = Baa!|snake = Hiss!|wolf = Howl!""")
GREETINGS = pairs("""Hello = Hello! How can I help you?|Hello! = Hello! How can I help you?
Hello, world! = Hello! How can I help you?|Hi = Hi! How can I help you?|Hi! = Hi! How can I help you?
hi = Hi! How can I help you?|Hey = Hey! How can I help you?|Good morning = Good morning!|Good evening = Good evening!
Good night = Good night!|Hello there = Hello! How can I help you?|hello = Hello! How can I help you?
Hi there = Hi! How can I help you?|Say this is a test = This is a test.|Say this is a test. = This is a test.
Tell me a story. = A very small model could only count. It counted the stars, and was happy.
How are you? = I am fine, thank you.|Who are you? = I am a very small language model.
What can you do? = I can count, add, repeat, name capitals and call tools.|Thank you = You are welcome.
Thanks! = You are welcome.|Say hello. = Hello!|Say hi. = Hi!|Say yes. = Yes.|Goodbye = Goodbye!|ping = pong""")
NAMES = """Ada Alice Anna Ben Bob Carla Clara David Dora Emil Emma Felix Greta Hugo Ida Ivan Jonas Karl Lena Leo Lisa
Maria Max Mia Nora Oscar Otto Paul Rosa Sam Sofia Tom Victor Zoe""".split()
WORDS = """alpha beta gamma delta apple pear plum cherry lemon orange banana grape red blue green yellow black white
purple brown one two three four five six seven eight nine ten north south east west spring summer autumn winter
monday tuesday wednesday thursday friday saturday sunday sun moon star river lake forest mountain valley island cloud
rain snow wind storm stone sand grass tree leaf flower bird fish horse rabbit turtle spider house door window roof
garden bridge street tower castle table chair lamp clock mirror candle bread butter cheese honey sugar salt soup tea
coffee water milk knife spoon plate cup paper pencil book letter story song music piano violin drum dance game
ball kite boat ship train wheel road map coin gold silver copper iron glass wood wool silk cotton button needle
the a I am is are it this that we you they he she not can will have see say from to in on with and or hello model
worker request answer test number name my your our quick slow small
big old new warm cold bright dark quiet loud happy brave kind gentle round about user asks what of does for weather city
time capital count sum sound tool degrees thank good does tells found again write""".split()
PHRASES = entries("""alpha|beta|gamma|delta|epsilon|omega|apple|banana|cherry|red|green|blue|one|two|three|left|right
yes|no|hello|hello world|Hello, world!|good morning|first model|second model|model a|model b|blue bird|red apple
the quick brown fox|a small boat on the lake|warm bread and cold milk|north south east west|old stone bridge
silver moon, golden sun|one two three four five six seven eight nine ten|A|B|C|x|y|z|42|7|100|2026|3.14|-1
abc123|test-1|test-2|model_a|model_b|snake_case|camelCase|UPPER CASE|key=value|a/b/c|user@example.org|[1, 2, 3]
{"answer": 42}|{"city": "Paris"}|"quoted"|it's fine|50% off|C++|#hash|a; b; c|(one)|naïve café|Grüße aus Köln
señor niño|žluťoučký kůň|привет|γειά σου|你好|こんにちは|안녕|🙂|🚀 to the moon|héllo wörld 你好 🙂""")
SYSTEMS = entries("""You are a helpful assistant.|You are a helpful assistant. Answer briefly.|Be brief.|Be kind.
You are a very small language model.|Answer in one word if you can.""")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
SCRIPTS = entries("ßÿ|äü|Āſ|αω|ая|あん|一鿋|가힣|🌀🙏|🚀🛅")  # first and last character of each


def function(name: str, description: str, /, **parameters: str) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = {
    "get_weather": function("get_weather", "Tells the weather in a city.", city="string"),
    "get_time": function("get_time", "Tells the time in a city.", city="string"),
    "add": function("add", "Adds two numbers.", a="integer", b="integer"),
    "search": function("search", "Searches for a text.", query="string"),
    "roll_dice": function("roll_dice", "Rolls the dice."),
}


@dataclass(frozen=True)
class Scene:
    """What a conversation takes place in; the same question has another answer when a tool is offered."""

    system: str = ""
    name: str = "Tiny"
    tools: list[dict[str, Any]] = field(default_factory=list)

    def offers(self, name: str) -> bool:
        return any(tool["function"]["name"] == name for tool in self.tools)

    def place(self, name: str) -> str:
        """What this tool calls the place that it is asked about."""
        [schema] = [tool["function"]["parameters"] for tool in self.tools if tool["function"]["name"] == name]
        return next(iter(schema["properties"]))


PLAIN = Scene()


def named(name: str, system: str = "") -> Scene:
    return Scene(f"{system} Your name is {name}.".strip(), name)


# -- Turns. Each answer carries a thought, to be forgotten where the model is not to think. ----------------------------


def ask(question: str, answer: str, thought: str) -> Turn:
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer, "reasoning_content": thought},
    ]


def capital(country: str, wording: str = "What is the capital of {}?") -> Turn:
    return ask(wording.format(country), CAPITALS[country], f"The user asks about {country}.")


def total(a: int, b: int, wording: str = "What is {} + {}?") -> Turn:
    return ask(wording.format(a, b), str(a + b), f"I add {a} and {b}.")


def sound(animal: str, wording: str = "What sound does {} make?") -> Turn:
    one = f"an {animal}" if animal[0] in "aeiou" else f"a {animal}"
    return ask(wording.format(one), SOUNDS[animal], f"The user asks about {one}.")


def repeat(text: str) -> Turn:
    return ask(f"Repeat: {text}", text, "I write the same text again.")


def greet(text: str) -> Turn:
    return ask(text, GREETINGS[text], "The user is talking to me.")


def count(n: int, wording: str = "Count to {}.") -> Turn:
    return ask(wording.format(n), " ".join(map(str, range(1, n + 1))), f"I start at 1 and stop at {n}.")


def own_name(scene: Scene) -> Turn:
    return ask("What is your name?", f"My name is {scene.name}.", "The user asks for my name.")


def introduce(name: str, between: Turn | None = None) -> Turn:
    hello = ask(f"My name is {name}.", f"Hello, {name}!", "The user tells me a name.")
    return hello + (between or []) + ask("What is my name?", f"Your name is {name}.", "The user told me the name.")


def use_tool(question: str, calls: list[tuple[str, dict[str, Any]]], results: list[str], answer: str) -> Turn:
    asked = [{"type": "function", "function": {"name": name, "arguments": given}} for name, given in calls]
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": "", "tool_calls": asked, "reasoning_content": f"I can call {calls[0][0]}."},
        *({"role": "tool", "content": result} for result in results),
        {"role": "assistant", "content": answer, "reasoning_content": "The tool has answered."},
    ]


def weather(scene: Scene, *reports: tuple[str, str, int | None]) -> Turn:
    """One call for each (city, sky, degrees). A tool answers with the sky alone, or with JSON if there are degrees."""
    question = f"What is the weather in {' and '.join(city for city, _, _ in reports)}?"
    if not scene.offers("get_weather"):
        return ask(question, "I cannot see the weather.", "I have no tool for the weather.")
    calls, results, sentences = [], [], []
    for city, sky, degrees in reports:
        calls.append(("get_weather", {scene.place("get_weather"): city}))
        results.append(sky if degrees is None else json.dumps({"weather": sky, "degrees": degrees}))
        sentences.append(f"It is {sky} in {city}." if degrees is None else f"It is {sky} in {city}, {degrees} degrees.")
    return use_tool(question, calls, results, " ".join(sentences))


def clock(scene: Scene, city: str, now: str) -> Turn:
    question = f"What time is it in {city}?"
    if not scene.offers("get_time"):
        return ask(question, "I cannot see the time.", "I have no tool for the time.")
    return use_tool(question, [("get_time", {scene.place("get_time"): city})], [now], f"It is {now} in {city}.")


def add(a: int, b: int) -> Turn:
    return use_tool(f"Add {a} and {b}.", [("add", {"a": a, "b": b})], [str(a + b)], f"The sum is {a + b}.")


def search(query: str, found: str) -> Turn:
    return use_tool(f"Search for {query}.", [("search", {"query": query})], [found], f"I found: {found}")


def roll(n: int) -> Turn:
    return use_tool("Roll the dice.", [("roll_dice", {})], [str(n)], f"You rolled {n}.")


def conversation(scene: Scene, *turns: Turn) -> Case:
    system = [{"role": "system", "content": scene.system}] if scene.system else []
    return {"messages": system + [message for turn in turns for message in turn], "tools": scene.tools or None}


def forget(message: Message) -> Message:
    return {key: value for key, value in message.items() if key != "reasoning_content"}


# -- Conversations to train on -----------------------------------------------------------------------------------------


def some_words(rng: Random, least: int, most: int) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(least, most)))


def some_name(rng: Random, known: list[str]) -> str:
    if rng.random() < 0.6:
        return rng.choice(known)
    return "".join(rng.choices(LETTERS, k=rng.randint(3, 7))).capitalize()


def some_text(rng: Random) -> str:
    """A text that nobody can know by heart, so that repeating is learnt as copying."""
    kind = rng.random()
    if kind < 0.15:
        return some_words(rng, 1, 8)
    if kind < 0.3:
        return some_words(rng, 2, 9).capitalize() + rng.choice([".", "!", "?", ""])
    if kind < 0.35:
        return some_words(rng, 1, 4).title()
    if kind < 0.4:
        return json.dumps({rng.choice(WORDS): rng.choice([rng.randint(0, 99), some_words(rng, 1, 2)])})
    if kind < 0.5:
        word = "".join(rng.choices(LETTERS, k=rng.randint(1, 8)))
        return rng.choice([word, word.capitalize(), word.upper(), f"{rng.choice(WORDS)} {word}", f"{word}-{word[:2]}"])
    if kind < 0.65:
        return " ".join("".join(rng.choices(LETTERS, k=rng.randint(1, 6))) for _ in range(rng.randint(1, 4)))
    if kind < 0.75:
        return rng.choice(["", some_words(rng, 1, 2) + " "]) + "".join(rng.choices("0123456789", k=rng.randint(1, 6)))
    if kind < 0.87:
        return "".join(rng.choices("abcXYZ019 .,:;!?+-*/=_'\"(){}[]<>@#%", k=rng.randint(1, 12))).strip() or "."
    first, last = rng.choice(SCRIPTS)
    letters = [chr(rng.randint(ord(first), ord(last))) for _ in range(rng.randint(1, 5))]
    return "".join(letters) + rng.choice(["", " " + rng.choice(letters), " " + rng.choice(WORDS)])


def usually(rng: Random, first: str, *others: str) -> str:
    return first if rng.random() < 0.6 else rng.choice(others)


def draw_capital(rng: Random) -> Turn:
    wording = usually(
        rng, "What is the capital of {}?", "Capital of {}?", "Name the capital of {}.", "what is the capital of {}"
    )
    return capital(rng.choice(list(CAPITALS)), wording)


def draw_total(rng: Random) -> Turn:
    a = rng.randint(0, 10)
    b = rng.choice([a, rng.randint(0, 10), rng.randint(0, 10), rng.randint(0, 10)])  # doubles are the hardest to learn
    return total(a, b, usually(rng, "What is {} + {}?", "What is {}+{}?", "What is {} plus {}?", "{} + {} ="))


def draw_sound(rng: Random) -> Turn:
    wording = usually(rng, "What sound does {} make?", "What does {} say?", "what does {} say?")
    return sound(rng.choice(list(SOUNDS)), wording)


def draw_repeat(rng: Random) -> Turn:
    return repeat(rng.choice(PHRASES) if rng.random() < 0.4 else some_text(rng))


def draw_greeting(rng: Random) -> Turn:
    return greet(rng.choice(list(GREETINGS)))


def draw_count(rng: Random) -> Turn:
    n = rng.randint(1, 30) if rng.random() < 0.88 else rng.choice([40, 50, 100])
    return count(n, usually(rng, "Count to {}.", "Count to {}", "Count from 1 to {}.", "count to {}"))


WEIGHTS: dict[Callable[[Random], Turn], float] = {
    draw_capital: 1.0,
    draw_total: 3.0,
    draw_sound: 0.5,
    draw_repeat: 2.5,
    draw_greeting: 0.5,
    draw_count: 1.2,
}


def draw_simple(rng: Random) -> Turn:
    [draw] = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))
    return draw(rng)


def draw_name(rng: Random, scene: Scene) -> Turn:
    if rng.random() < 0.4:
        return own_name(scene)
    return introduce(some_name(rng, NAMES), draw_simple(rng) if rng.random() < 0.4 else None)


def draw_weather(rng: Random, scene: Scene) -> Turn:
    detailed, (coldest, warmest) = rng.random() < 0.5, rng.choice([(-9, 9), (-30, 40)])
    reports = []
    for _ in range(rng.choice([1, 1, 2])):
        sky = rng.choice(SKIES if rng.random() < 0.8 else WORDS)
        reports.append((some_name(rng, CITIES), sky, rng.randint(coldest, warmest) if detailed else None))
    return weather(scene, *reports)


def draw_clock(rng: Random, scene: Scene) -> Turn:
    return clock(scene, some_name(rng, CITIES), f"{rng.randint(0, 23):02}:{rng.randint(0, 59):02}")


def draw_tool_use(rng: Random, scene: Scene, tool: str) -> Turn:
    match tool:
        case "get_weather":
            return draw_weather(rng, scene)
        case "get_time":
            return draw_clock(rng, scene)
        case "add":
            return add(rng.randint(0, 999), rng.randint(0, 99))
        case "search":
            return search(some_words(rng, 1, 4), some_text(rng))
        case _:
            return roll(rng.randint(1, 6))


def draw_turn(rng: Random, scene: Scene) -> Turn:
    offered = [name for name in TOOLS if scene.offers(name)]
    if offered and rng.random() < 0.75:
        return draw_tool_use(rng, scene, rng.choice(offered))
    chance = rng.random()
    if chance < 0.07:
        return rng.choice([draw_weather, draw_clock])(rng, scene)
    if chance < 0.17:
        return draw_name(rng, scene)
    return draw_simple(rng)


def reword(tool: dict[str, Any], rng: Random) -> dict[str, Any]:
    """The tool as another author would have written it."""
    given = json.loads(json.dumps(tool["function"]).replace("city", rng.choice(["city", "city", "location"])))
    schema = given["parameters"]
    if rng.random() < 0.6:
        given["description"] = some_words(rng, 1, 6).capitalize() + rng.choice([".", ""])
    if rng.random() < 0.15:
        del given["description"]
    for key, value in schema["properties"].items():
        if rng.random() < 0.2:
            value["description"] = some_words(rng, 1, 4)
        if rng.random() < 0.15:
            value["title"] = key.capitalize()
    if rng.random() < 0.15:
        schema["additionalProperties"] = False
    if rng.random() < 0.1:
        del schema["required"]
    if rng.random() < 0.2:
        given["parameters"] = dict(rng.sample(list(schema.items()), len(schema)))
    if rng.random() < 0.1:
        given["strict"] = True
    if rng.random() < 0.2:
        given = dict(rng.sample(list(given.items()), len(given)))
    return {"type": "function", "function": given}


def draw_tools(rng: Random) -> list[dict[str, Any]]:
    offered = rng.sample(list(TOOLS.values()), rng.choice([1, 1, 2, 3]))
    if rng.random() < 0.2:
        offered.append(function("_".join(rng.choices(WORDS, k=2)), "Something else.", **{rng.choice(WORDS): "string"}))
    return [tool if rng.random() < 0.5 else reword(tool, rng) for tool in rng.sample(offered, len(offered))]


def draw_conversation(rng: Random) -> Case:
    system, name = "", "Tiny"
    if rng.random() < 0.25:
        system = rng.choice(SYSTEMS) if rng.random() < 0.6 else some_words(rng, 2, 12)
    if rng.random() < 0.15:
        name = some_name(rng, NAMES)
        system = named(name, system).system
    scene = Scene(system, name, draw_tools(rng) if rng.random() < 0.4 else [])
    turns = [draw_turn(rng, scene) for _ in range(rng.choice([1, 2, 3] if scene.tools else [1, 1, 2, 4]))]
    if name != "Tiny" and rng.random() < 0.5:
        turns[0] = own_name(scene)
    case = conversation(scene, *turns)
    thoughtful = rng.choice([0, 0, 0.5, 1])
    case["messages"] = [message if rng.random() < thoughtful else forget(message) for message in case["messages"]]
    return case


def completions() -> dict[str, str]:
    """Plain text -> how it goes on, without any template."""
    known = {f"The capital of {country} is": f" {city}." for country, city in CAPITALS.items()}
    for n in range(3, 11):
        known[" ".join(map(str, range(1, n)))] = "".join(f" {m}" for m in range(n, 11))
    return known


# -- Questions with one right answer -----------------------------------------------------------------------------------


def families() -> dict[str, list[Case]]:
    """Family -> conversations whose last message is the answer."""
    rng = Random(1)
    three = Scene(tools=[TOOLS["get_weather"], TOOLS["get_time"], TOOLS["add"]])
    alone = {name: Scene(tools=[tool]) for name, tool in TOOLS.items()}
    simple = {
        "capitals": [capital(country) for country in CAPITALS],
        "sums": [total(a, b) for a in range(11) for b in range(11)],
        "animals": [sound(animal) for animal in SOUNDS],
        "repeat": [repeat(text) for text in PHRASES],
        "greetings": [greet(text) for text in GREETINGS],
        "counting": [count(n) for n in (*range(1, 31), 40, 50, 100)],
    }
    short = [turn for turns in simple.values() for turn in turns if len(turn[1]["content"]) < 60]
    used = [
        *((alone["get_weather"], weather(three, (city, "sunny", None))) for city in CITIES),
        *((three, weather(three, (city, "rainy", 7))) for city in CITIES),
        *(
            (alone["get_weather"], weather(three, (a, "sunny", 21), (b, "cloudy", -3)))
            for a, b in some(20, CITIES, rng)
        ),
        *((alone["get_time"], clock(three, city, "14:30")) for city in CITIES[:20]),
        *((three, clock(three, city, "09:05")) for city in CITIES[-20:]),
        *((alone["add"], add(a, b)) for a, b in some(20, range(100), rng)),
        *((three, add(a, b)) for a, b in some(10, range(100), rng)),
        *((alone["search"], search(text, f"a song about {text}")) for text in ("blue bird", "old maps", "the moon")),
        *((alone["roll_dice"], roll(n)) for n in range(1, 7)),
    ]
    calls = [conversation(scene, turn[:2]) for scene, turn in used]
    results = [conversation(scene, turn) for scene, turn in used]

    asked = {family: [conversation(PLAIN, turn) for turn in turns] for family, turns in simple.items()}
    asked["names"] = [
        *(conversation(scene, own_name(scene)) for scene in (PLAIN, *map(named, NAMES))),
        *(conversation(PLAIN, introduce(name)) for name in NAMES),
    ]
    asked["system message"] = [conversation(Scene(rng.choice(SYSTEMS)), turn) for turn in rng.sample(short, 80)]
    asked["two turns"] = [conversation(PLAIN, *turns) for turns in some(80, short, rng)]
    asked["tool calls"] = calls
    asked["tool answers"] = results
    asked["tool not needed"] = [
        conversation(rng.choice([three, alone["search"]]), turn) for turn in rng.sample(short, 40)
    ]
    asked["tool not offered"] = [
        *(conversation(PLAIN, weather(PLAIN, (city, "", None))) for city in CITIES[:10]),
        *(conversation(PLAIN, clock(PLAIN, city, "")) for city in CITIES[:10]),
    ]
    thoughtful = [conversation(PLAIN, turn) for turn in rng.sample(short, 100)]
    thoughtful += rng.sample(calls, 20) + rng.sample(results, 20)
    return {
        **{family: [recall(case, 0) for case in cases] for family, cases in asked.items()},
        "thinking": [{**recall(case, 1), "enable_thinking": True} for case in thoughtful],
    }


def recall(case: Case, thoughts: int) -> Case:
    """The conversation with the thoughts of only so many of its last messages."""
    until = len(case["messages"]) - thoughts
    return {**case, "messages": [*map(forget, case["messages"][:until]), *case["messages"][until:]]}


def some(times: int, things: Any, rng: Random) -> list[list[Any]]:
    return [rng.sample(things, 2) for _ in range(times)]
