"""Words for times in several languages, in lower case."""
# ruff: noqa: RUF001, E501 - letters of other scripts, of which some count twice

from typing import Final

#: Months in English, German, French, Spanish, Italian, Portuguese, Dutch, Turkish, Russian, Arabic, Hindi and Thai.
#: Japanese, Chinese and Korean write them in digits.
_MONTHS: Final = """
1 january jan januar jänner janvier janv enero ene gennaio gen janeiro januari ocak январь января январе يناير जनवरी
1 มกราคม
2 february feb februar février févr febrero febbraio fevereiro februari şubat февраль февраля феврале فبراير फरवरी
2 กุมภาพันธ์
3 march mar märz mars marzo março maart mart март марта марте مارس मार्च มีนาคม
4 april apr avril avr abril abr aprile nisan апрель апреля апреле أبريل ابريل अप्रैल เมษายน
5 may mai mayo maggio maio mei mayıs май мая мае مايو मई พฤษภาคม
6 june jun juni juin junio giugno junho haziran июнь июня июне يونيو जून มิถุนายน
7 july jul juli juillet juil julio luglio julho temmuz июль июля июле يوليو जुलाई กรกฎาคม
8 august aug août agosto augustus ağustos август августа августе أغسطس اغسطس अगस्त สิงหาคม
9 september sept sep septembre septiembre settembre setembro eylül сентябрь сентября сентябре سبتمبر सितंबर กันยายน
10 october oct oktober okt octobre octubre ottobre outubro ekim октябрь октября октябре أكتوبر اكتوبر अक्टूबर ตุลาคม
11 november nov novembre noviembre novembro kasım ноябрь ноября ноябре نوفمبر नवंबर พฤศจิกายน
12 december dec dezember dez décembre déc diciembre dic dicembre dezembro aralık декабрь декабря декабре ديسمبر
12 दिसंबर ธันวาคม
"""

_SEASONS: Final = """
3 spring frühling frühjahr printemps primavera voorjaar lente ilkbahar весной весна
6 summer sommer été verano estate verão zomer yaz yazın летом лето
9 autumn fall herbst automne otoño autunno outono herfst sonbahar осенью осень
12 winter hiver invierno inverno kış kışın зимой зима
"""

_WEEKDAYS: Final = """
0 monday montag lundi lunes lunedì maandag pazartesi понедельник
1 tuesday dienstag mardi martes martedì dinsdag salı вторник
2 wednesday mittwoch mercredi miércoles mercoledì woensdag çarşamba среду
3 thursday donnerstag jeudi jueves giovedì donderdag perşembe четверг
4 friday freitag vendredi viernes venerdì vrijdag cuma пятницу
5 saturday samstag samedi sábado sabato zaterdag cumartesi субботу
6 sunday sonntag dimanche domingo domenica zondag pazar воскресенье
"""

#: Phrases, separated by `|`, by the period that they name: `unit` and the number of units before the present one.
_RELATIVE: Final = """
day 0: today|tonight|this morning|this evening|heute|aujourd'hui|hoy|oggi|hoje|vandaag|bugün|сегодня|اليوم|आज|今日|今天
day 0: 오늘|วันนี้
day 1: yesterday|last night|gestern|hier|ayer|ieri|ontem|gisteren|dün|вчера|أمس|امس|昨日|昨天|어제|เมื่อวาน|เมื่อวานนี้
day 2: the day before yesterday|vorgestern|avant-hier|anteayer|l'altro ieri|anteontem|eergisteren|позавчера|أول أمس
day 2: परसों|一昨日|前天|그저께|เมื่อวานซืน
week 0: this week|diese woche|cette semaine|esta semana|questa settimana|deze week|bu hafta|на этой неделе
week 0: هذا الأسبوع|इस हफ्ते|इस सप्ताह|今週|这周|本周|이번 주|สัปดาห์นี้
week 1: last week|previous week|letzte woche|letzter woche|vorige woche|la semaine dernière|semaine dernière
week 1: la semana pasada|semana pasada|la settimana scorsa|settimana scorsa|semana passada|vorige week
week 1: afgelopen week|geçen hafta|на прошлой неделе|الأسبوع الماضي|पिछले हफ्ते|पिछले सप्ताह|先週|上周|上个星期|上星期|지난주|지난 주
week 1: สัปดาห์ที่แล้ว|อาทิตย์ที่แล้ว
month 0: this month|diesen monat|diesem monat|ce mois-ci|este mes|questo mese|este mês|deze maand|bu ay
month 0: в этом месяце|هذا الشهر|इस महीने|今月|这个月|이번 달|เดือนนี้
month 1: last month|previous month|letzten monat|letztem monat|vorigen monat|le mois dernier|mois dernier
month 1: el mes pasado|mes pasado|il mese scorso|mese scorso|mês passado|vorige maand|afgelopen maand|geçen ay
month 1: в прошлом месяце|الشهر الماضي|पिछले महीने|先月|上个月|上月|지난달|지난 달|เดือนที่แล้ว
year 0: this year|dieses jahr|diesem jahr|cette année|este año|quest'anno|este ano|dit jaar|bu yıl|в этом году
year 0: هذا العام|इस साल|今年|올해|ปีนี้
year 1: last year|previous year|letztes jahr|letzten jahr|voriges jahr|l'année dernière|l'an dernier|el año pasado
year 1: l'anno scorso|ano passado|vorig jaar|geçen yıl|в прошлом году|العام الماضي|السنة الماضية|पिछले साल|去年|昨年|작년
year 1: ปีที่แล้ว
weekend 1: last weekend|letztes wochenende|le week-end dernier|el fin de semana pasado|geçen hafta sonu
weekend 1: в прошлые выходные|先週末|上周末|지난 주말
"""

_UNITS: Final = """
day days tag tage tagen jour jours día días giorno giorni dia dias dag dagen gün день дня дней يوم أيام दिन 日 天 일 วัน
week weeks woche wochen semaine semaines semana semanas settimana settimane weken hafta неделю недели недель أسبوع أسابيع हफ्ते सप्ताह 週間 周 주 สัปดาห์
month months monat monate monaten mois mes meses mese mesi mês maand maanden ay месяц месяца месяцев شهر أشهر महीने か月 ヶ月 个月 개월 달 เดือน
year years jahr jahre jahren an ans année années año años anno anni ano anos jaar yıl sene год года лет سنة سنوات साल 年 년 ปี
"""

_NUMBERS: Final = """
1 a an one ein eine einem einer un une una um uma een bir один одну एक
2 two zwei deux dos due dois duas twee iki два две दो
3 three drei trois tres tre três drie üç три तीन
4 four vier quatre cuatro quattro quatro dört четыре चार
5 five fünf cinq cinco cinque vijf beş пять पांच
6 six sechs seis sei zes altı шесть छह
"""

#: Words before a month or a year that show that it is one.
_TEMPORAL: Final = """
in on since during from until till of by before after around about late early mid year the im ab seit bis vom vor nach
jahr anno en au du depuis avant après desde hasta antes después durante dal nel nell in dall fino sinds tot vóór
в во с до после год году yılı yılında في منذ عام سنة
"""


def _numbered(table: str) -> dict[str, int]:
    """Map the words of each line to its number."""
    rows = [line.split() for line in table.strip().splitlines()]
    return {word: int(row[0]) for row in rows for word in row[1:]}


def _relative() -> dict[str, tuple[str, int]]:
    """Map phrases to their unit and the number of units before the present one."""
    phrases: dict[str, tuple[str, int]] = {}
    for line in _RELATIVE.strip().splitlines():
        period, _, names = line.partition(": ")
        unit, count = period.split()
        phrases |= {phrase: (unit, int(count)) for phrase in names.split("|")}
    return phrases


MONTHS, SEASONS, WEEKDAYS = _numbered(_MONTHS), _numbered(_SEASONS), _numbered(_WEEKDAYS)

NUMBERS = _numbered(_NUMBERS)

RELATIVE = _relative()

UNITS = {word: line.split()[0] for line in _UNITS.strip().splitlines() for word in line.split()}

TEMPORAL = frozenset(_TEMPORAL.split())
