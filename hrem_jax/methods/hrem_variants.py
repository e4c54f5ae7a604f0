"""HREM's named variants: the paper's ablations and more (METHOD section 7)."""

from hrem_jax.methods.method import Variant

VARIANTS = {
  'fusion': Variant('Fusion, everything on', {'hrem.interaction': 'fusion'}, (83.3, 96.0, 63.5, 87.1)),
  'standalone': Variant('Standalone', {'hrem.interaction': 'standalone'}),
  'standalone_shared': Variant(
    'Standalone, one set of layers for both modalities',
    {'hrem.interaction': 'standalone', 'hrem.share_weights': True},
  ),
  # Ablation (a)
  'no_fragment_graphs': Variant(
    'no fragment graphs', {'hrem.image_graph': False, 'hrem.text_graph': False}, (81.5, 94.9, 62.3, 86.2)
  ),
  'text_graph_only': Variant('textual fragment graph only', {'hrem.image_graph': False}, (81.8, 95.1, 62.4, 86.2)),
  'image_graph_only': Variant('visual fragment graph only', {'hrem.text_graph': False}, (83.1, 95.9, 63.2, 87.0)),
  'no_instance_level': Variant('no instance level', {'hrem.interaction': 'none'}, (80.1, 94.8, 60.9, 85.3)),
  'intra_only': Variant('intra-modal relations only', {'hrem.association.blocks': 'intra'}, (80.5, 94.7, 61.2, 85.2)),
  'inter_only': Variant('inter-modal relations only', {'hrem.association.blocks': 'inter'}, (82.2, 95.5, 62.6, 86.4)),
  # Ablation (b)
  'without_connection': Variant('without A: all connected', {'hrem.association.keep': 1.0}, (81.4, 95.1, 61.5, 86.3)),
  'without_relevance': Variant(
    'without S', {'hrem.relevance_weight': 0.0, 'hrem.relation_weight': 0.0}, (81.7, 95.3, 61.9, 86.5)
  ),
  'without_mixed_losses': Variant('without the mixed losses', {'hrem.cross_weight': 0.0}, (81.6, 95.6, 61.8, 86.7)),
  'without_relation_loss': Variant('without L_reg', {'hrem.relation_weight': 0.0}, (82.8, 95.8, 62.9, 86.9)),
  'without_neighbours': Variant('without neighbour batches', {'data.sampler': 'shuffled'}, (82.8, 95.9, 63.1, 87.0)),
  'neighbours': Variant('with neighbour batches', {'data.sampler': 'neighbours'}, (83.3, 96.0, 63.5, 87.1)),
  # Sizes and kinds
  'squared_affinity': Variant('intra relevance from squared distances', {'hrem.association.squared': True}),
  'sigma_05': Variant('sigma 0.5', {'hrem.association.sigma': 0.5}),
  'sigma_20': Variant('sigma 2', {'hrem.association.sigma': 2.0}),
  'keep_25': Variant('a quarter of each row connected', {'hrem.association.keep': 0.25}),
  'keep_75': Variant('three quarters of each row connected', {'hrem.association.keep': 0.75}),
  'top_k_5': Variant('5 strongest fragment matches', {'hrem.association.top_k': 5}),
  'top_k_20': Variant('20 strongest fragment matches', {'hrem.association.top_k': 20}),
  'lambda_05': Variant('lambda 0.5', {'hrem.relevance_weight': 0.5}),
  'lambda_15': Variant('lambda 1.5', {'hrem.relevance_weight': 1.5}),
  'residual_0': Variant('pooling after the graph only', {'hrem.residual_weight': 0.0}),
  'residual_50': Variant('residual weight 0.5', {'hrem.residual_weight': 0.5}),
  'hinge': Variant('hardest-negative hinge losses', {'loss.base': 'hinge', 'hrem.enhanced': 'hinge'}),
  'hinge_sum': Variant(
    'hinge losses over all negatives', {'loss.base': 'hinge', 'hrem.enhanced': 'hinge', 'loss.hardest_negative': False}
  ),
  'raw_inputs': Variant('the interaction sees embeddings that are not normalised', {'hrem.normalize_inputs': False}),
  # Not trained
  'full': Variant('Full*: mean of both', members=('fusion', 'standalone')),
}
