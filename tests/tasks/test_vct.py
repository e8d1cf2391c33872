"""VCT: what it leaves unchanged, its attention maps written out, how much U-Net work it does, and what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor, nn

from r2r.attention import AttentionInputs, AttentionSite, KeyValue, Rows, Sites, attend, attention_control
from r2r.cli import CONF, build
from r2r.diffusion import classifier_free_guidance, ddim_step
from r2r.errors import InputError
from r2r.models.required_sites import require_sites
from r2r.models.stable_diffusion import StableDiffusion, TextConditioning
from r2r.tasks.multi_concept_inversion import MultiConceptInversion
from r2r.tasks.null_text import NullTextOptimization
from r2r.tasks.prompt_to_prompt import CrossRefine
from r2r.tasks.vct import ContentConceptFusion, VisualConceptTranslator
from tests.pipelines import LEVELS, random_pipeline

TOKENS, VECTORS = 16, 3
CROSS = AttentionSite("up_blocks.1.attentions.0.transformer_blocks.0.attn2", "cross", "up", 2)


def picture(seed: int = 0, size: tuple[int, int] = (32, 24)) -> Image.Image:
    pixels = torch.randint(0, 256, (size[1], size[0], 3), generator=torch.Generator().manual_seed(seed))
    return Image.fromarray(pixels.byte().numpy())


def latents_of(count: int = 1, seed: int = 0) -> Tensor:
    return torch.randn(count, 4, 12, 16, generator=torch.Generator().manual_seed(seed))


def translator(
    prediction: str = "epsilon", xl: bool = False, steps: int = 2, inner: int = 2, **settings: Any
) -> VisualConceptTranslator:
    """Around a random pipeline, with few steps of everything; `settings` are those of the fusion."""
    return VisualConceptTranslator(
        StableDiffusion(random_pipeline(xl, prediction_type=prediction)),
        picture(9, (40, 32)),
        concept=MultiConceptInversion(steps=steps, batch_size=2, learning_rate=0.05),
        null_text=NullTextOptimization(num_inner_steps=inner),
        fusion=ContentConceptFusion(**settings),
        num_inference_steps=5,
    )


def told(pipe: VisualConceptTranslator, text: str) -> TextConditioning:
    return pipe.model.encode_prompts([text])


def assert_near(got: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


# Identities


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@torch.no_grad()
def test_without_windows_the_empty_concept_is_plain_sampling(prediction: str) -> None:
    """And that is the reconstruction: the null-text optimisation knows the way already."""
    pipe = translator(prediction, cross_ratio=0.0, self_ratio=0.0, reweight=1.0)
    content, empty = pipe.invert(latents_of()), told(pipe, "")
    got = pipe.fuse(content, empty)
    latents = content.latents[0]
    for index, step in enumerate(reversed(pipe.steps[1:])):
        assert_near(latents, content.latents[index])
        negative, prompt = (
            pipe.translator.predict_noise(latents, step.timestep, step.signal, condition)
            for condition in (content.unconditional[index], empty)
        )
        latents = ddim_step(latents, classifier_free_guidance(negative, prompt, 7.5), step.signal, step.signal_before)
    assert_near(got, latents)
    assert_near(got, content.latents[-1])


def test_the_contents_self_attention_is_no_news_to_the_content() -> None:
    """Told the same, both streams are equal, and injection changes nothing."""
    pipe = translator(cross_ratio=0.0, self_ratio=1.0)
    content = pipe.invert(latents_of())
    assert_near(pipe.fuse(content, told(pipe, "")), content.latents[-1])


def test_null_text_optimisation_retraces_the_inversion_better() -> None:
    """Than the empty prompt does at the end, and its losses fall in every step."""
    without, few, many = (translator(inner=inner).invert(latents_of()) for inner in (0, 2, 20))
    errors = [float((found.latents[-1] - latents_of()).norm()) for found in (without, few, many)]
    assert errors[2] < errors[1] < errors[0]
    assert without.losses == [[]] * 5 and all(losses[-1] < losses[0] for losses in many.losses[:-1])


def test_windows_and_concept_matter() -> None:
    """No two of these are the same."""
    results: dict[str, Tensor] = {}
    for name, settings in {
        "none": {"cross_ratio": 0.0, "self_ratio": 0.0},
        "self": {"cross_ratio": 0.0, "self_ratio": 1.0},
        "cross": {"cross_ratio": 1.0, "self_ratio": 0.0, "reweight": 1.0},
        "halved": {"cross_ratio": 1.0, "self_ratio": 0.0},
        "released": {"cross_ratio": 1.0, "self_ratio": 0.0, "reweighted": "released"},
    }.items():
        pipe = translator(**settings)
        results[name] = pipe.fuse(pipe.invert(latents_of()), told(pipe, "<concept>"))
    assert all(float((x - y).norm()) > 1e-3 for a, x in results.items() for b, y in results.items() if a < b)


@torch.no_grad()
def test_three_rows_equal_both_streams_in_full() -> None:
    """The released layout: content and result in both halves, the content sampled along instead of remembered."""
    pipe = translator(cross_ratio=0.4, self_ratio=0.8)
    content, empty, concept = pipe.invert(latents_of()), told(pipe, ""), told(pipe, "<concept>")
    rows = Rows(("content-negative", "result-negative", "content", "result"), 1)
    inject, refine = pipe.fusion.controls(concept, VECTORS)
    inject.rows = refine.rows = rows.route(result="content")
    both = content.latents[0].repeat(2, 1, 1, 1)
    with attention_control(pipe.model.unet, inject, refine):
        for index, step in enumerate(reversed(pipe.steps[1:])):
            inject.enabled, refine.enabled = index < 4, index < 2
            negative = content.unconditional[index]
            condition = TextConditioning.cat([negative, negative, empty, concept])
            noise = pipe.translator.predict_noise(both.repeat(2, 1, 1, 1), step.timestep, step.signal, condition)
            guided = classifier_free_guidance(*noise.chunk(2), 7.5)
            both = ddim_step(both, guided, step.signal, step.signal_before)
    assert_near(both[:1], content.latents[-1])
    assert_near(both[1:], pipe.fuse(content, concept))


# Attention maps


def released_map(content: Tensor, own: Tensor, weights: Tensor, num_new: int) -> Tensor:
    """P2P with explicit maps; mapper and alphas as the released aligner gives them for "" and `num_new` tokens."""
    tokens, end = own.shape[-1], num_new + 1
    mapper = torch.tensor([0, *[-1] * num_new, 1, *range(end + 1, tokens)])
    alphas = (mapper != -1).float()
    refined = content[..., mapper] * alphas + own * (1 - alphas)
    return refined * weights


@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize("weight", [1.0, 0.5, 0.0])
def test_cross_refine_is_prompt_to_prompt(vectors: int, weight: float) -> None:
    generator = torch.Generator().manual_seed(0)
    query = torch.randn(3, 2, 20, 8, generator=generator)
    key, value = torch.randn(2, 3, 2, TOKENS, 8, generator=generator)
    weights = torch.ones(TOKENS)
    weights[1 : 1 + vectors] = weight
    rows = Rows(("unconditional", "content", "result"), 1).route(result="content")
    inputs = AttentionInputs(query, (KeyValue(key, value),))
    got = attend(CrossRefine(Sites("cross"), rows, vectors, weights)(inputs, CROSS))
    maps = (query @ key.transpose(-1, -2) / 8**0.5).softmax(dim=-1)
    maps[2] = released_map(maps[1], maps[2], weights, vectors)
    torch.testing.assert_close(got, maps @ value, rtol=1e-5, atol=1e-6)


def test_cross_refine_leaves_other_places_alone() -> None:
    rows = Rows(("content", "result"), 1).route(result="content")
    control = CrossRefine(Sites("cross"), rows, VECTORS, torch.ones(TOKENS))
    key = torch.zeros(2, 1, TOKENS, 4)
    inputs = AttentionInputs(torch.zeros(2, 1, 5, 4), (KeyValue(key, key),))
    assert control(inputs, AttentionSite("x.attn1", "self", "up", 2)) is inputs
    control.enabled = False
    assert control(inputs, CROSS) is inputs


@pytest.mark.parametrize(("reweighted", "halved"), [("concept", [1, 2, 3]), ("released", [0, 1, 2])])
def test_reweighted_positions(reweighted: str, halved: list[int]) -> None:
    pipe = translator(reweighted=reweighted)
    _, refine = pipe.fusion.controls(told(pipe, "<concept>"), VECTORS)
    assert (refine.weights != 1).nonzero().flatten().tolist() == halved
    assert refine.weights[halved].tolist() == [0.5] * 3 and len(refine.weights) == TOKENS


def test_the_concept_takes_the_positions_after_the_start() -> None:
    """What `CrossRefine` assumes of the prompt: start, the vectors, end."""
    pipe = translator()
    tokenizer = pipe.model.pipe.tokenizer
    ids = tokenizer(pipe.model.pipe.maybe_convert_prompt("<concept>", tokenizer)).input_ids
    assert tokenizer.convert_ids_to_tokens(ids[1:-1]) == ["<concept>", "<concept>_1", "<concept>_2"]
    assert ids[:1] + ids[-1:] == tokenizer("").input_ids


# Work


@pytest.mark.parametrize(
    ("settings", "riding"),
    [
        ({}, 4),  # int(5 * 0.9), all that are no identity
        ({"self_ratio": 0.4, "cross_ratio": 0.0}, 2),
        ({"self_ratio": 0.0, "cross_ratio": 0.6}, 3),
        ({"self_ratio": 0.0, "cross_ratio": 0.0}, 0),
    ],
)
def test_evaluations(settings: dict[str, float], riding: int) -> None:
    """Four steps that are no identity: inverted once, two inner steps each and two more evaluations, two rows each."""
    pipe, rows = translator(**settings), []
    pipe.model.unet.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))
    pipe([picture(0), picture(1)])
    assert sum(rows) == pipe.model.sample_evals == 2 * 2 + 2 * (4 + 4 * (2 + 2) + 4 * 2 + riding)
    pipe(picture(2))  # the concept is learned already
    assert sum(rows) == pipe.model.sample_evals == 2 * 2 + 3 * (4 + 4 * (2 + 2) + 4 * 2 + riding)


def test_defaults_of_the_fusion_cost_143_evaluations() -> None:
    """As its docstring says: 49 pairs and 45 content rows."""
    self_steps, cross_steps = ContentConceptFusion().windows(50)
    assert (self_steps, cross_steps) == (45, 10) and 2 * 49 + 45 == 143


def test_the_model_is_left_as_it_was() -> None:
    pipe = translator()
    before = {name: value.clone() for name, value in pipe.model.unet.state_dict().items()}
    processors = dict(pipe.model.unet.attn_processors)
    pipe(picture())
    assert all(torch.equal(value, before[name]) for name, value in pipe.model.unet.state_dict().items())
    assert all(pipe.model.unet.attn_processors[name] is each for name, each in processors.items())
    trained = [
        parameter for module in pipe.model.modules() for parameter in module.parameters() if parameter.requires_grad
    ]
    assert [id(parameter) for parameter in trained] == [id(parameter) for parameter in pipe.concept.vectors]


# From pictures to pictures


@pytest.mark.parametrize(("prediction", "xl"), [("epsilon", False), ("v_prediction", False), ("epsilon", True)])
def test_end_to_end(prediction: str, xl: bool) -> None:
    pipe, done = translator(prediction, xl), []
    images = [picture(0, (37, 51)), picture(1), picture(2, (24, 32)).convert("L")]
    results = pipe(images, progress=done.append)
    assert [image.size for image in results] == [image.size for image in images] and done == [1, 1, 1]
    assert {image.mode for image in results} == {"RGB"}
    assert pipe(images[1], resolution=16)[0].size == images[1].size


def test_bfloat16() -> None:
    pipe = random_pipeline().to(torch.bfloat16)
    small = MultiConceptInversion(steps=1), NullTextOptimization(num_inner_steps=1)
    translate = VisualConceptTranslator(
        StableDiffusion(pipe), picture(), concept=small[0], null_text=small[1], num_inference_steps=3
    )
    assert translate(picture(1))[0].size == (32, 24)


def test_same_seed_same_pixels() -> None:
    one, again, other = (translator(steps=3)(picture(), seed=seed)[0].tobytes() for seed in (1, 1, 2))
    assert one == again != other


def test_learning_lowers_the_loss_and_starts_anew_each_time() -> None:
    pipe, done = translator(steps=30), []
    losses = pipe.learn_concept(progress=done.append)
    assert sum(losses[-10:]) < sum(losses[:10]) and len(done) == 30
    assert pipe.learn_concept() == losses


@pytest.mark.parametrize("xl", [False, True])
def test_a_saved_concept_gives_the_same_pictures(xl: bool, tmp_path: Path) -> None:
    first, second = translator(xl=xl), translator(xl=xl)
    first.learn_concept()
    first.save_concept(tmp_path / "new" / "concept.safetensors")
    second.load_concept(tmp_path / "new" / "concept.safetensors")
    evaluations = second.model.sample_evals
    assert evaluations == 0 and first(picture())[0].tobytes() == second(picture())[0].tobytes()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["concept.safetensors"]


def test_a_saved_concept_is_a_textual_inversion(tmp_path: Path) -> None:
    pipe = translator()
    pipe.learn_concept()
    pipe.save_concept(tmp_path / "concept.safetensors")
    model = StableDiffusion(random_pipeline())
    assert model.load_negative_embedding(tmp_path / "concept.safetensors") == "<concept>"
    with torch.no_grad():
        assert_near(model.encode_prompts(["<concept>"]).prompt_embeds, told(pipe, "<concept>").prompt_embeds)


# Refusals


def test_a_concept_of_something_else_is_refused(tmp_path: Path) -> None:
    pipe, file = translator(), tmp_path / "concept.safetensors"
    with pytest.raises(InputError, match="not learned yet"):
        pipe.save_concept(file)
    with pytest.raises(InputError, match=r"concept.safetensors' cannot be read"):
        pipe.load_concept(file)
    pipe.learn_concept()
    pipe.save_concept(file)
    with pytest.raises(InputError, match="steps=2 instead of 7"):
        translator(steps=7).load_concept(file)
    model = StableDiffusion(random_pipeline())
    with pytest.raises(InputError, match="reference="):
        VisualConceptTranslator(model, picture(8), concept=pipe.concept.settings).load_concept(file)
    other = VisualConceptTranslator(
        StableDiffusion(random_pipeline()), picture(9, (40, 32)), concept=MultiConceptInversion(num_vectors=2)
    )
    with pytest.raises(InputError, match=r"shapes \[\(3, 24\)\], expected \[\(2, 24\)\]"):
        other.load_concept(file)
    file.write_bytes(b"broken")
    with pytest.raises(InputError, match="cannot be read"):
        pipe.load_concept(file)


def shallow() -> StableDiffusion:
    """A U-Net with a single level: nothing at stride 2 or deeper."""
    pipe = random_pipeline()
    levels = {name: value[:1] if isinstance(value, tuple) else value for name, value in LEVELS.items()}
    pipe.unet = UNet2DConditionModel(sample_size=16, cross_attention_dim=24, **levels)
    return StableDiffusion(pipe)


def test_a_control_without_sites_is_refused() -> None:
    model = shallow()
    with pytest.raises(InputError, match=r"min_stride=2.*UNet2DConditionModel.*self at stride 1"):
        VisualConceptTranslator(model, picture())
    assert len(require_sites(model, Sites("self"))) == 4
    fusion = ContentConceptFusion(self_ratio=0.0)
    VisualConceptTranslator(model, picture(), fusion=fusion)  # nothing is to be injected there


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_inference_steps": 1}, r"num_inference_steps=1 must lie in \[2, 100\]"),
        ({"num_inference_steps": 101}, "num_inference_steps=101"),
        ({"guidance_scale": 1.0}, "guidance_scale=1.0"),
        ({"reference": "nowhere.png"}, "reference='nowhere.png' is not a file"),
        ({"concept": {"num_vectors": 15}}, "num_vectors=15 do not fit into a prompt of 14 tokens"),
        ({"concept": {"num_vectors": 0}}, "num_vectors=0"),
        ({"concept": {"resolution": 0}}, "resolution=0"),
        ({"concept": {"learning_rate": 0.0}}, "learning_rate=0"),
        ({"concept": {"placeholder_token": "two words"}}, "two words"),
        ({"null_text": {"num_inner_steps": -1}}, "num_inner_steps=-1"),
        ({"fusion": {"cross_ratio": 1.5}}, "cross_ratio=1.5"),
        ({"fusion": {"self_ratio": -0.5}}, "self_ratio=-0.5"),
        ({"fusion": {"reweight": -1.0}}, "reweight=-1"),
        ({"fusion": {"reweighted": "all"}}, "reweighted='all'"),
        ({"fusion": {"min_stride": 8}}, "min_stride=8"),
    ],
)
def test_what_is_wrong_is_named_at_once(settings: dict[str, Any], message: str) -> None:
    kinds = {"concept": MultiConceptInversion, "null_text": NullTextOptimization, "fusion": ContentConceptFusion}
    model = StableDiffusion(random_pipeline())
    with pytest.raises(InputError, match=message):
        built = {name: kinds[name](**value) if name in kinds else value for name, value in settings.items()}
        VisualConceptTranslator(model, **{"reference": picture(), **built})


def test_float16_is_refused() -> None:
    with pytest.raises(InputError, match="bfloat16"):
        VisualConceptTranslator(StableDiffusion(random_pipeline().to(torch.float16)), picture())


def test_the_config_has_the_defaults() -> None:
    config = OmegaConf.load(CONF / "translate" / "task" / "vct.yaml")
    pipe = build(config, model=StableDiffusion(random_pipeline()), reference=picture())
    assert isinstance(pipe, VisualConceptTranslator) and isinstance(pipe.model.unet, nn.Module)
    default = MultiConceptInversion(), NullTextOptimization(), ContentConceptFusion()
    assert (pipe.concept.settings, pipe.null_text, pipe.fusion) == default
    assert (pipe.settings.num_inference_steps, pipe.guidance_scale) == (50, 7.5)
