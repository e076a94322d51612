"""List the words that lexical search ignores, and the names that are common words too."""

from typing import Final

import regex

_STOP_WORDS: Final = """
a about above after again against all am an and any are as at be because been before being below between both
but by can cannot could did do does doing down during each few for from further had has have having he her here
hers herself him himself his how i if in into is it its itself just let lets me more most must my myself no nor
not now of off on once only or other ought our ours ourselves out over own same shall she should so some such
than that the their theirs them themselves then there these they this those through to too under until up upon
us very was we were what when where which while who whom whose why will with would yes you your yours yourself
yourselves

don't doesn't didn't isn't aren't wasn't weren't won't wouldn't can't couldn't shouldn't hasn't haven't hadn't
mustn't i'm i've i'd i'll you're you've you'd you'll he's he'd he'll she's she'd she'll it's it'd it'll we're
we've we'd we'll they're they've they'd they'll that's there's here's what's where's when's who's why's how's
let's dont doesnt didnt isnt arent wasnt werent wont wouldnt cant couldnt shouldnt hasnt havent hadnt im ive
youre youve hes shes theyre theyve thats theres whats wheres whos hows
"""

_NAMES: Final = """
amber angel april art august autumn bill bob chance charity chase chip clay crystal daisy dawn dean drew faith
flora frank ginger grace grant guy harmony hazel heather holly hope hunter iris ivy jade jean jewel joy june
lily mark mason may melody mercy miles nick olive pat patience pearl penny pepper poppy ray red rich robin rocky
rose ruby sage sandy sky star storm sue summer sunny tanner taylor tom van victor violet ward will
"""

#: Phrases of questions in scripts that have no stop words, since their texts are indexed by pairs of characters.
_QUERY_PHRASES: Final = """
ที่ไหน อยู่ที่ไหน อยู่ ของฉัน ของผม ของดิฉัน ฉัน ดิฉัน เมื่อไหร่ เมื่อไร อะไร ใคร ทำไม อย่างไร ไหม หรือเปล่า ครับ ค่ะ คะ
哪里 哪儿 哪個 哪个 哪裡 什么 什麼 怎么 怎麼 怎样 谁的 什么时候 何时 多少 为什么 我的 你的 他的 她的 我们 他们
何処 何時 何故 誰 何
어디에 어디서 어디 있어요 있나요 있습니까 있어 무엇 뭐 누구 누가 언제 왜 어떻게 나의 내가 제가 무슨
"""

QUERY_PHRASES = regex.compile("|".join(sorted(_QUERY_PHRASES.split(), key=len, reverse=True)))

#: English function words and question words: they occur in most sentences and discriminate nothing.
STOP_WORDS = frozenset(_STOP_WORDS.split())

#: Names that are common English words in lower case.
WORDLIKE_NAMES = frozenset(_NAMES.split())
