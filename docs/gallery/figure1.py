from jaxtv.vision.figures import figure1  # extra `vision`

figure1().savefig("figure1.webp", dpi=80)
