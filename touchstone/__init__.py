"""TouchStone: dialogues about pictures, whose answers a judge compares with reference answers."""
