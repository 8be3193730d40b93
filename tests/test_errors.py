from artsel_ray.errors import first_line, one_line, without_advice


def test_first_line_is_the_message_or_the_type() -> None:
    assert first_line(ValueError("\nwrong\nand more")) == "wrong"
    assert first_line(ValueError("  ")) == "ValueError"


def test_one_line_is_bounded() -> None:
    assert one_line(ValueError("wrong\n\tand   more")) == "wrong and more"
    assert len(one_line(ValueError("x" * 1000))) == 400


def test_advice_with_options_of_another_library_is_left_out() -> None:
    text = "It has no layers.\nSee the manual. Pass `trust_remote_code=True` to run it! Or set NO_CHECK=1, or --force."
    assert without_advice(text) == "It has no layers. See the manual."
    assert (
        without_advice("Use some_option.  Or another_one. Or --force.", {"--force"}) == "Use some_option. Or --force."
    )
