"""Numbers as people read them."""


def significant(number: float) -> str:
    """Four significant digits, with thousands separators; whole numbers in full."""
    if float(number).is_integer() and abs(number) < 1e15:
        return f"{int(number):,}"
    return f"{number:,.1f}" if abs(number) >= 1000 else f"{number:.4g}"


def in_percent(share: float) -> str:
    """A share in percent with one decimal, such as '96.5 %'; with more where one would round to none or all."""
    for decimals in (1, 2, 3, 4):
        text = f"{100 * share:.{decimals}f}"
        if float(text) not in (0, 100) or share in (0, 1):
            break
    return f"{text.removesuffix('.0') if share in (0, 1) else text} %"
