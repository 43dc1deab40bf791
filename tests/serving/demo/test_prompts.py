from serving.demo.prompts import PROMPTS


def test_prompts_are_36_different_functions() -> None:
    assert len(PROMPTS) == len(set(PROMPTS)) == 36
    assert all(prompt == prompt.rstrip("\n") and '"""' in prompt for prompt in PROMPTS)
