"""Numbers as people read them."""


def significant(number: float) -> str:
    """Four significant digits; whole numbers in full, and others from 1,000 to 10 million without decimals."""
    whole = float(number).is_integer() and abs(number) < 1e15
    return f"{number:,.0f}" if whole or 1000 <= abs(number) < 1e7 else f"{number:.4g}"


def in_percent(share: float) -> str:
    """A share in percent with one decimal, such as '96.5 %'; with more where one would round to none or all."""
    for decimals in (1, 2, 3, 4):
        text = f"{100 * share:.{decimals}f}"
        if float(text) not in (0, 100) or share in (0, 1):
            break
    return f"{text.removesuffix('.0') if share in (0, 1) else text} %"
