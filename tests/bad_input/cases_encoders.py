"""Folders of towers as encoders of pictures."""

from bad_input.breaking import cut, entry, gone
from bad_input.table import Case

EXTRACT = 'extract --images W/photos --encoder W/siglip --output W/new'
CONFIG, PROCESSOR, WEIGHTS = 'siglip/config.json', 'siglip/preprocessor_config.json', 'siglip/model.safetensors'

CASES = [
  Case(
    'an encoder that is not there',
    EXTRACT.replace('siglip', 'nothing'),
    'unknown, expected one of efficientnet-lite2, .*, or a folder with config.json',
  ),
  Case('an encoder without config.json', EXTRACT, f'{CONFIG}: no such file; expected is a Hugging', gone(CONFIG)),
  Case(
    'an encoder of a kind that is not known',
    EXTRACT,
    f"{CONFIG}: model_type is 'resnet', expected one of vit, clip",
    entry(CONFIG, lambda content: content.update(model_type='resnet')),
  ),
  Case(
    'a SigLIP 2 for pictures of any shape',
    EXTRACT,
    rf"{CONFIG}: model_type is 'siglip2', pictures of any shape \(NaFlex\), expected a SigLIP 2 of a fixed resolution",
    entry(CONFIG, lambda content: content.update(model_type='siglip2')),
  ),
  Case('an encoder without weights', EXTRACT, f'{WEIGHTS}: no such file; weights are read from', gone(WEIGHTS)),
  Case('weights of an encoder cut off', EXTRACT, f'{WEIGHTS}: not a whole safetensors file', cut(WEIGHTS, 9999)),
  Case(
    'an encoder with more layers than weights',
    EXTRACT,
    f"{WEIGHTS}: no tensor 'vision_model.encoder.layers.3.layer_norm1.weight'",
    entry(CONFIG, lambda content: content['vision_config'].update(num_hidden_layers=4)),
  ),
  Case(
    'an encoder that does not say how pictures are prepared',
    EXTRACT,
    f'{PROCESSOR}: no such file; it says how pictures are resized and normalised',
    gone(PROCESSOR),
  ),
  Case(
    'pictures prepared in another size than the encoder has',
    EXTRACT,
    'siglip: the preprocessing gives 32 x 32 pixels, config.json expects 23 x 23',
    entry(PROCESSOR, lambda content: content.update(size={'height': 32, 'width': 32})),
  ),
  Case(
    'pictures prepared in a size that no memory holds',
    EXTRACT,
    f'{PROCESSOR}: size.height is 100000, expected at most 2,048',
    entry(PROCESSOR, lambda content: content.update(size={'height': 100_000, 'width': 100_000})),
  ),
  Case(
    'an encoder of a size that no model has',
    EXTRACT,
    f'{CONFIG}: vision_config.hidden_size is 1000.*, expected at most 2,097,152',
    entry(CONFIG, lambda content: content['vision_config'].update(hidden_size=10**40)),
  ),
]
